"""How two models share a list, for people: in a plan, and at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchinfer.cli.tables import table
from batchinfer.cli.terminal import tell

if TYPE_CHECKING:
    from batchinfer.pipeline.cascade_report import CascadeReport, ModelFigures
    from batchinfer.planning.price import CascadePlan, ModelPrice


def print_cascade_plan(plan: CascadePlan) -> None:
    """What each model would be asked, and what the large one alone would be."""
    names = {"small": plan.small, "large": plan.large, "the large one alone": plan.large_alone}
    rows = [_priced(name, price) for name, price in names.items()]
    table("Two models", ["", "model", "to generate", "time"], rows, right=["to generate", "time"])
    tell(str(plan.division))


def _priced(name: str, price: ModelPrice) -> list[str]:
    from batchinfer.cli.progress import duration

    if price.at_least == price.at_most:
        count = f"{price.at_most:,}"
    elif price.to_generate is None:
        count = f"{price.at_least:,} to {price.at_most:,}"
    else:
        count = f"about {price.to_generate:,}"
    return [name, price.model, count, "unknown" if price.estimate_seconds is None else duration(price.estimate_seconds)]


def print_cascade(report: CascadeReport) -> None:
    """What each model did in a run."""
    rows = [_did("small", report.small), _did("large", report.large)]
    columns = ["", "model", "asked", "answers", "generated", "failed", "rows/s"]
    table("Two models", columns, rows, right=columns[2:])


def _did(name: str, figures: ModelFigures) -> list[str]:
    known = ["-" if count is None else f"{count:,}" for count in (figures.asked, figures.answers)]
    rate = "-" if figures.rows_per_second is None else f"{figures.rows_per_second:.1f}"
    return [name, figures.model, *known, f"{figures.generated:,}", f"{figures.failed:,}", rate]
