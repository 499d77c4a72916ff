"""precision: how right is what is served, by verdicts on a sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchinfer.cli.opening import open_job
from batchinfer.cli.options import (
    format_option,
    input_option,
    job_argument,
    json_option,
    output_file,
    pairs,
    yes_option,
)
from batchinfer.cli.tables import percent
from batchinfer.cli.terminal import emit, tell, teller, warn
from batchinfer.cli.values import Integer, PathText
from batchinfer.errors import UsageError, counted
from batchinfer.review.sheet import FORMATS

if TYPE_CHECKING:
    from batchinfer.core.output import OutputFile
    from batchinfer.evaluate.precision import VersionPrecision


@click.command("precision")
@job_argument
@click.option("--sample", type=Integer(min=1), metavar="N", help="Draw so many rows for review, into --out.")
@click.option(
    "--out", type=PathText(), metavar="FILE", help="With --sample: a .csv or .parquet file; - for standard output."
)
@format_option(FORMATS)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="With --sample: of a checking job, also what match.where and min_score leave out.",
)
@click.option(
    "--where",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="With --sample: only rows with this value; may be repeated for other columns.",
)
@click.option("--version", type=Integer(min=1), metavar="N", help="A version other than the one that is served.")
@input_option
@yes_option
@json_option
def precision_(
    job: str, sample: int | None, out: str | None, chosen: str | None, everything: bool, where: tuple[str, ...],
    version: int | None, input_path: Path | None, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Say how many of the served predictions are right, by people's verdicts on a sample, with an interval.

    --sample draws the rows to judge by chance; of each, the file knows how likely it was to be drawn. Without --version
    they are of what would be published now. Mark the verdicts and import the file like any review, then call precision
    again without --sample. Reviews that show the worst first cannot be used for this.
    """
    if (sample is None) != (out is None):
        raise UsageError("--sample and --out go together: --sample N --out FILE draws N rows into a file to be marked.")
    if sample is None and (where or chosen or everything):
        raise UsageError("--where, --all and --format go with --sample N --out FILE.")
    if sample is None or out is None:
        _figure(job, version, input_path, as_json)
    else:
        _draw(
            job,
            sample,
            output_file(out, chosen, as_json, FORMATS),
            where,
            version,
            input_path,
            yes,
            as_json,
            everything,
        )


def _figure(job: str, version: int | None, input_path: Path | None, as_json: bool) -> None:
    from batchinfer.evaluate.precision import version_precision
    from batchinfer.planning.prepare import Options

    opened, data = open_job(job)
    report = version_precision(opened, data, Options(input=input_path), version, warn)
    emit(report.to_json(), as_json, lambda: tell(_said(report)))


def _draw(
    job: str, count: int, output: OutputFile, where: tuple[str, ...], version: int | None, input_path: Path | None, yes: bool,
    as_json: bool, everything: bool,
) -> None:  # fmt: skip
    from batchinfer.cli.progress import ProgressConsole
    from batchinfer.evaluate.precision import draw_sample
    from batchinfer.planning.prepare import Options

    opened, data = open_job(job)
    options, only = Options(input=input_path, yes=yes), pairs(where, opened.spec.input.key, option="--where")
    with ProgressConsole() as show:
        drawn = draw_sample(opened, data, options, output, count, only, version, show, everything=everything)
    marked = "FILE" if output.path is None else str(output)
    before = f" ({drawn.judged:,} more that were drawn have a verdict already)" if drawn.judged else ""
    done = (
        f"Wrote {counted(drawn.rows, 'row')} to {output}{before}, drawn by chance from {drawn.stands_for:,}. Mark verdict as accept, "
        f"reject or correct, from the top, then: batchinfer import {job} {marked}, and batchinfer precision {job}"
    )
    emit(drawn.to_json(), as_json, lambda: teller(output)(done))


def _said(report: VersionPrecision) -> str:
    """The figure, and what it rests on, as sentences."""
    found, version = report.found, f"Version {report.version} of {report.job}"
    said = [
        f"{version}: {percent(found.estimate)} of the {found.of} are right (95 % interval {percent(found.low)} to "
        f"{percent(found.high)}), by {counted(found.verdicts, 'verdict')} on samples of {found.rows:,}."
        if found.verdicts
        else f"{version}: all that is served ({found.rows:,} {found.of}) is there only because people said so, and counts as right."
    ]
    if found.covered < found.rows:
        said.append(
            f"{found.rows - found.covered:,} of them came or changed since: no sample stands for them, so the interval holds "
            "whatever they are."
        )
    if found.disagreements:
        said.append(
            f"Reviewers disagree on {counted(found.disagreements, 'row')}; each counts with the mean of their verdicts."
        )
    if found.others:
        said.append(
            f"{counted(found.others, 'verdict')} of other reviews do not count: those rows were not drawn by chance."
        )
    if report.recall is not None:
        low, high = report.recall.interval.low, report.recall.interval.high
        said.append(
            f"Of what {counted(report.recall.verdicts, 'golden row')} must contain, {percent(report.recall.value)} is served "
            f"({percent(low)} to {percent(high)})."
        )
    return " ".join(said)
