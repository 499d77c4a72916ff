"""distill: a small model that learns from the large one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchinfer.cli.common import emit, input_option, job_argument, json_option, open_job, percent, table, tell, warn
from batchinfer.errors import MissingExtra

if TYPE_CHECKING:
    from batchinfer.training.distill import DistillReport, Likeness


@click.command("distill")
@job_argument
@input_option
@json_option
def distill_(job: str, input_path: Path | None, as_json: bool) -> None:
    """Train a small student on the model's scores, and say from which score on it can be trusted.

    It learns from three rows in four, and is held against the model on the others. The job file needs a section student.
    Agreement with the model is not truth: how right the model is itself, precision says.
    """
    try:
        import scipy  # noqa: F401
        import threadpoolctl  # noqa: F401
    except ImportError as exc:
        raise MissingExtra("SciPy and threadpoolctl", "train") from exc
    from batchinfer.planning.prepare import Options
    from batchinfer.training.distill import distill

    opened, data = open_job(job)
    report = distill(opened, data, Options(input=input_path), warn)
    emit(report.to_json(), as_json, lambda: _print_student(report))


def _print_student(report: DistillReport) -> None:
    table(
        f"{report.job}: {report.learned:,} rows learned, {report.held:,} held out",
        ["what says it", "as the model", "rank correlation", "Brier score"],
        [
            ["the student", *_cells(report.student)],
            ["one that learned rounded answers", *_cells(report.rounded)],
            ["always the most frequent answer", percent(report.most_frequent), "", ""],
        ],
        right=["as the model", "rank correlation", "Brier score"],
    )
    if report.threshold is not None:
        found = report.threshold
        tell(
            f"From a score of {found.score:.3f} on it answers {percent(found.answered)} of the held-out rows, "
            f"{percent(found.agreement)} of them as the model. At least {percent(report.agree)} can be promised, with "
            f"{percent(report.confidence)} confidence."
        )
    if report.student.agreement <= report.most_frequent:
        tell("Always saying the most frequent answer agrees as often: look at how scores are ranked, not at answers.")
    if report.problem is not None:
        tell(f"It is not kept: {report.problem}.")
    else:
        tell(f"It is kept: {report.size / 1000:,.0f} KB.")


def _cells(likeness: Likeness) -> list[str]:
    rank = "" if likeness.spearman is None else f"{likeness.spearman:.3f}"
    return [percent(likeness.agreement), rank, f"{likeness.brier:.4f}"]
