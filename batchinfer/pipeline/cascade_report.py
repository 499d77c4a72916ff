"""What a run or a publishing says of the two models of a cascade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from batchinfer.pipeline.progress import Progress
from batchinfer.planning.cascade import Cascade, Stage
from batchinfer.versions.published_run import PublishedCascade

Turns = Sequence[tuple[Stage | None, Progress]]


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """What one of the two models did.

    model: its label.
    asked: how many prompts of the list it is asked, in this run or before; None where that is not known yet.
    answers: how many take its answer; None like these.
    generated: predictions that this run made with it.
    failed: prompts that failed in this run.
    rows_per_second: prompts that it answered in a second of generation; None where it was not asked.
    engine_load_seconds: until it was ready.
    """

    model: str
    asked: int | None
    answers: int | None
    generated: int
    failed: int
    rows_per_second: float | None
    engine_load_seconds: float


@dataclass(frozen=True, slots=True)
class CascadeReport:
    """How two models shared the list.

    division: how, as the manifest has it.
    small, large: what each of them did.
    """

    division: PublishedCascade
    small: ModelFigures
    large: ModelFigures

    def to_json(self) -> dict[str, Any]:
        return self.division.to_json() | {"small": asdict(self.small), "large": asdict(self.large)}


def report_cascade(cascade: Cascade, turns: Turns) -> CascadeReport:
    """turns: of the run, each with its stage; none of a publishing."""
    said, division = cascade.published(), cascade.division
    small, large = (
        Progress.together([turn for stage, turn in turns if stage in stages]) for _, stages in cascade.questions
    )
    return CascadeReport(
        said,
        _figures(said.small.model, division.small_asked, said.small.answers, small),
        _figures(said.large.model, division.large_asked, said.large.answers, large),
    )


def _figures(model: str, asked: int | None, answers: int | None, spent: Progress) -> ModelFigures:
    rate = spent.rate(spent.done)
    return ModelFigures(
        model,
        asked,
        answers,
        spent.generated,
        spent.failed,
        None if not rate else round(rate, 3),
        round(spent.load_seconds, 3),
    )
