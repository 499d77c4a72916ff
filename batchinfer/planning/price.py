"""What a run would cost where two models share the list: rows and time of each, and what the large one alone would take."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from batchinfer.cache.store import Store
from batchinfer.planning.cascade import Cascade, Stage
from batchinfer.planning.rates import Reports, run_reports, seconds_of
from batchinfer.versions.published_run import PublishedCascade


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """What a run would ask of one model.

    model: its label.
    to_generate: prompts; None where nothing tells how many.
    at_least, at_most: the same, as far as it is sure.
    estimate_seconds: from earlier runs here; None without one that asked this model, or where to_generate is None.
    """

    model: str
    to_generate: int | None
    at_least: int
    at_most: int
    estimate_seconds: float | None


@dataclass(frozen=True, slots=True)
class CascadePlan:
    """What a run would ask of both models.

    division: how they share the list, as far as it is known.
    small, large: what each would be asked.
    large_alone: what the large one would be asked in a job that has no other.
    """

    division: PublishedCascade
    small: ModelPrice
    large: ModelPrice
    large_alone: ModelPrice

    @property
    def estimate_seconds(self) -> float | None:
        """Of both, one after the other."""
        each = (self.small.estimate_seconds, self.large.estimate_seconds)
        return None if None in each else round(sum(seconds or 0.0 for seconds in each), 1)

    def to_json(self) -> dict[str, Any]:
        prices = {"small": self.small, "large": self.large, "large_alone": self.large_alone}
        shared = self.division.to_json()
        return shared | {name: shared.get(name, {}) | asdict(price) for name, price in prices.items()}


def price_cascade(cascade: Cascade, store: Store) -> CascadePlan:
    """Leaves the plan as the next stage of a run would have it."""
    reports = run_reports(store)
    small, sample = cascade.turn_to(Stage.SMALL), cascade.turn_to(Stage.SAMPLE)
    rest, alone = cascade.turn_to(Stage.REST), cascade.large_alone()
    cascade.turn_to(Stage.SMALL if small else Stage.SAMPLE if sample else Stage.REST)
    said, division = cascade.published(), cascade.division
    told = max(sample, rest)  # once the division is known, the rest has the sample in it
    if division.is_known and (not small or division.problem is not None):
        sure = told if division.threshold else alone
        large = ModelPrice(said.large.model, sure, sure, sure, seconds_of(reports, said.large.model, sure))
    else:
        share = _share(said, reports) if cascade.unsure_share is None else cascade.unsure_share
        new = None if share is None else round(share * (small if division.is_known else alone))
        guess = None if new is None else min(new + (told if division.is_known else 0), alone)
        least = min(told if division.is_known else cascade.sample_left, alone)
        large = ModelPrice(
            said.large.model,
            None if guess is None else max(guess, least),
            least,
            alone,
            seconds_of(reports, said.large.model, guess),
        )
    return CascadePlan(
        said,
        ModelPrice(said.small.model, small, small, small, seconds_of(reports, said.small.model, small)),
        large,
        ModelPrice(said.large.model, alone, alone, alone, seconds_of(reports, said.large.model, alone)),
    )


def _share(said: PublishedCascade, reports: Reports) -> float | None:
    """The share of the prompts that the large model was asked in the newest run of these two; None without one."""
    for report in reports:
        if (shared := report.get("cascade")) is None:
            continue
        small, large = shared["small"], shared["large"]
        if (
            (small["model"], large["model"]) == (said.small.model, said.large.model)
            and large["asked"]
            and small["asked"]
        ):
            return float(large["asked"] / small["asked"])
    return None
