"""distill: a small model that learns from the large one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchinfer.cli.opening import open_job
from batchinfer.cli.options import input_option, job_argument, json_option
from batchinfer.cli.tables import percent, table
from batchinfer.cli.terminal import emit, tell, warn
from batchinfer.errors import counted

if TYPE_CHECKING:
    from batchinfer.publish.student_report import PeopleLikeness, StudentReport, StudentSlice
    from batchinfer.student.likeness import Likeness


@click.command("distill")
@job_argument
@input_option
@json_option
def distill_(job: str, input_path: Path | None, as_json: bool) -> None:
    """Train a small student on the model's scores, and say from which score on it can be trusted.

    It learns from three rows in four, and is held against the model on the others. The job file needs a section student.
    Nothing is kept: run and publish train the same student for the version that they make. Agreement with the model is
    not truth: how right the model is itself, people say.
    """
    from batchinfer.student.version import need_student_libraries

    need_student_libraries()
    from batchinfer.planning.prepare import Options
    from batchinfer.training.distill import distill

    opened, data = open_job(job)
    report = distill(opened, data, Options(input=input_path), warn)
    emit(report.to_json(), as_json, lambda: _print_student(report))


def _print_student(report: StudentReport) -> None:
    table(
        f"{report.job}: {report.learned:,} rows learned, {report.held:,} held out",
        ["what says it", "as the model", "rank correlation", "Brier score", "calibration error"],
        [
            ["the student", *_cells(report.student)],
            *([] if report.linear is None else [["a linear one", *_cells(report.linear)]]),
            ["one that learned rounded answers", *_cells(report.rounded)],
            ["always the most frequent answer", percent(report.most_frequent), "", "", ""],
        ],
        right=["as the model", "rank correlation", "Brier score", "calibration error"],
    )
    if report.threshold is not None:
        found = report.threshold
        tell(
            f"From a score of {found.score:.3f} on it answers {percent(found.answered)} of {report.judged_by}, "
            f"{percent(found.agreement)} of them as the model. At least {percent(report.agree)} can be promised, with "
            f"{percent(report.confidence)} confidence."
        )
    tell("Agreement with the model is not truth: how right the model is, batchinfer precision says.")
    if report.caution is not None:
        tell(report.caution)
    if report.people is not None:
        _print_people(report.people)
    if report.slices:
        _print_slices(report.slices)
    if report.problem is not None:
        tell(f"A version would have no student: {report.problem}.")
    else:
        tell(f"A version would have it: {report.size / 1000:,.0f} KB.")


def _print_people(people: PeopleLikeness) -> None:
    columns = ["as people", "rank correlation", "Brier score", "calibration error"]
    rows = [
        ["the student", *_cells(people.student)],
        ["the model", *_cells(people.model)],
        ["one that learned rounded answers", *_cells(people.rounded)],
        ["always the model's most frequent answer", percent(people.most_frequent), "", "", ""],
    ]
    table(f"{counted(people.rows, 'row')} that people judged", ["what says it", *columns], rows, right=columns)
    if people.answered:
        tell(
            f"Of these it would answer {people.answered:,}, {percent(people.right / people.answered)} of them as people."
        )


def _print_slices(slices: tuple[StudentSlice, ...]) -> None:
    rows = [
        [f"{each.column}={'(none)' if each.value is None else each.value}", f"{each.rows:,}", percent(each.answered),
         percent(each.agreement), each.verdict]
        for each in slices
    ]  # fmt: skip
    table(
        "", ["group", "rows", "answered", "as the model", "verdict"], rows, right=["rows", "answered", "as the model"]
    )


def _cells(likeness: Likeness) -> list[str]:
    rank = "" if likeness.spearman is None else f"{likeness.spearman:.3f}"
    return [percent(likeness.agreement), rank, f"{likeness.brier:.4f}", f"{likeness.ece:.3f}"]
