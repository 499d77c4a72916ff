"""What a job's runs cost, beside the look-ups that their versions answered and what live calls would have cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from batchinfer.cache.published import versions_by_run
from batchinfer.cache.schema import RunRow
from batchinfer.cache.store import Store
from batchinfer.core.cost import Cost, money_text
from batchinfer.core.home import JobData
from batchinfer.versions.lookups import read_lookups

THOUSAND = 1000


@dataclass(frozen=True, slots=True)
class Served:
    """Look-ups that a service answered, and what they came to.

    lookups: how many.
    money_per_1000: what was paid for a thousand of them; None without a price, or without look-ups.
    live_money: what asking the model each time would have cost; None where nobody knows what an answer costs.
    currency: of both.
    """

    lookups: int
    money_per_1000: float | None
    live_money: float | None
    currency: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Ledger:
    """Of a job.

    money: of all its runs that cost some, those of evaluations and audits, too; None where none named a price.
    is_whole: whether these are all runs that asked a model.
    currency: that of the newest run that named a price; others do not count.
    device_seconds: of all its runs.
    per_answer: what runs paid for an answer, loading the model and failed rows included; None where nothing is known.
    lookups: that a service answered, by version.
    published: the versions that hold the answers of a run and of those before it, by its number.
    """

    money: float | None
    is_whole: bool
    currency: str | None
    device_seconds: float
    per_answer: float | None
    lookups: Mapping[int, int]
    published: Mapping[int, Sequence[int]]

    @classmethod
    def of(
        cls, runs: Sequence[RunRow], lookups: Mapping[int, int], published: Mapping[int, Sequence[int]] | None = None
    ) -> Self:
        """runs: newest first."""
        costs = [(run, Cost.of(run.report.get("cost"))) for run in runs]
        currency = next((cost.currency for _, cost in costs if cost is not None and cost.money is not None), None)
        paid = [
            (run, cost.money) for run, cost in costs
            if cost is not None and cost.money is not None and cost.currency == currency
        ]  # fmt: skip
        asked = [(money, run.report.get("generated") or 0) for run, money in paid if not run.status.is_aside]
        answers = sum(generated for _, generated in asked)
        priced = {run.run_id for run, _ in paid}
        return cls(
            money=sum(money for _, money in paid) if paid else None,
            is_whole=all(run.run_id in priced for run in runs if run.report.get("generated")),
            currency=currency,
            device_seconds=sum(cost.device_seconds for _, cost in costs if cost is not None),
            per_answer=sum(money for money, _ in asked) / answers if answers else None,
            lookups=lookups,
            published=published or {},
        )

    def served(self, run: RunRow) -> Served | None:
        """What the versions that a run led to answered, as paid by that run; None where it led to none."""
        versions = self.published.get(run.run_id)
        if not versions:
            return None
        cost = Cost.of(run.report.get("cost"))
        paid = cost.money if cost is not None and cost.currency == self.currency else None
        return self._came_to(sum(self.lookups.get(version, 0) for version in versions), paid)

    def whole(self) -> Served:
        """What all versions answered, as paid by all runs."""
        return self._came_to(sum(self.lookups.values()), self.money if self.is_whole else None)

    def _came_to(self, lookups: int, paid: float | None) -> Served:
        each = None if paid is None or not lookups else THOUSAND * paid / lookups
        live = None if self.per_answer is None else lookups * self.per_answer
        return Served(lookups, each, live, self.currency)

    def to_json(self) -> dict[str, Any]:
        return {
            "money": self.money, "device_seconds": round(self.device_seconds, 3), "money_per_answer": self.per_answer,
            **self.whole().to_json(),
        }  # fmt: skip

    def __str__(self) -> str:
        """A sentence for people; empty where there is nothing to compare."""
        whole = self.whole()
        if self.money is None or self.currency is None or whole.money_per_1000 is None:
            return ""
        said = (
            f"All runs cost {money_text(self.money, self.currency)}: {money_text(whole.money_per_1000, self.currency)} for each "
            f"1,000 of the {whole.lookups:,} look-ups that were answered."
        )
        if whole.live_money is None or self.per_answer is None:
            return said
        return (
            f"{said} Asking the model each time would have cost about {money_text(whole.live_money, self.currency)}, at "
            f"{money_text(THOUSAND * self.per_answer, self.currency)} for 1,000 answers."
        )


def read_ledger(data: JobData) -> Ledger:
    """As of now."""
    store = Store(data.cache)
    return Ledger.of(store.runs(), read_lookups(data), versions_by_run(store))
