"""calibrate: scores that are the chance of being right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchinfer.cli.evaluate import need_scipy
from batchinfer.cli.opening import open_job
from batchinfer.cli.options import input_option, job_argument, json_option
from batchinfer.cli.tables import percent, table
from batchinfer.cli.terminal import emit, tell, warn

if TYPE_CHECKING:
    from batchinfer.evaluate.calibrate import CalibrationReport


@click.command("calibrate")
@job_argument
@click.option(
    "--group",
    metavar="COLUMN",
    help="Hold out the values of this column in turn, such as language.  [default: the job file's]",
)
@input_option
@json_option
def calibrate_(job: str, group: str | None, input_path: Path | None, as_json: bool) -> None:
    """Learn from people's verdicts how likely each prediction is to be right, and make that its score.

    A small model looks at the scores of this job and of others, and at plain facts. It is tried on groups that were held out,
    so it says what holds for a language that nobody reviewed. With a section calibrate in the job file, the next version's
    scores are the chance of being right: min_score 0.9 means nine in ten.
    """
    need_scipy()
    from batchinfer.evaluate.calibrate import calibrate
    from batchinfer.planning.prepare import Options

    opened, data = open_job(job)
    report = calibrate(opened, data, Options(input=input_path), group, warn)
    emit(report.to_json(), as_json, lambda: _print_calibration(report))


def _print_calibration(report: CalibrationReport) -> None:
    from batchinfer.evaluate.plot import bar

    model = report.model
    group = "rows" if model.group is None else f"values of {model.group}"
    table(
        f"{report.job}: scores of {model.verdicts:,} verdicts, each learned without its group ({model.groups:,} {group})",
        ["score", "right", "", "verdicts"],
        [[percent(each.score), percent(each.right), bar(each), f"{each.rows:,}"] for each in report.reliability],
        right=["score", "right", "verdicts"],
    )
    tell(
        f"On groups that were held out: area under the ROC curve {model.auc:.3f}, calibration error {model.ece:.3f}, "
        f"of which chance alone gives {model.chance:.3f}."
    )
    if report.auc_before is not None:
        error = "" if report.ece_before is None else f", calibration error {report.ece_before:.3f}"
        tell(f"The score as it was: area {report.auc_before:.3f}{error}.")
    tell(f"It looks at: {', '.join(f'{each.name} ({each.weight:+.2f})' for each in model.features) or 'nothing'}.")
    curve = ", ".join(f"{point.verdicts:,}: {point.auc:.3f}" for point in report.learning)
    more = f"about {report.more:,} more would help" if report.more else "more would hardly help"
    tell(f"Area by the number of verdicts: {curve}; {more}.")
    wanted = "" if report.used else " once the job file has a section calibrate: {}"
    tell(f"batchinfer publish {report.job} gives these scores{wanted}.")
