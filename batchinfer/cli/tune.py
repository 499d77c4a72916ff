"""tune: the engine options that answer a job fastest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchinfer.cli.notices import model_note
from batchinfer.cli.opening import open_job
from batchinfer.cli.options import job_argument, json_option
from batchinfer.cli.tables import percent, table
from batchinfer.cli.terminal import emit, tell
from batchinfer.cli.values import Integer

if TYPE_CHECKING:
    from batchinfer.pipeline.tune import TriedOptions, TuneReport

ROWS = 128


@click.command("tune")
@job_argument
@click.option(
    "--try",
    "wanted",
    multiple=True,
    metavar="NAME=V,V",
    help="Try these values of an engine option, instead of those that tune would choose.",
)
@click.option(
    "--rows",
    type=Integer(min=8),
    default=ROWS,
    show_default=True,
    metavar="N",
    help="Prompts of a trial in the first round.",
)
@click.option("--write", is_flag=True, help="Write the fastest options into the job file.")
@json_option
def tune_(job: str, wanted: tuple[str, ...], rows: int, write: bool, as_json: bool) -> None:
    """Try engine options on prompts that the cache lacks, and say which answer fastest.

    The answers are kept, so nothing is asked twice. What could change an answer is never tried.
    """
    from dataclasses import replace

    from batchinfer.cli.progress import ProgressConsole
    from batchinfer.job.replaced import write_job_file
    from batchinfer.pipeline.tune import tune, variants_for, with_best
    from batchinfer.pipeline.variants import wanted_variants

    opened, data = open_job(job)
    usual = variants_for(opened)
    variants = wanted_variants(wanted) or usual
    if write:
        with_best(opened, variants[0])  # a file that cannot be changed is refused before hours of trials
    model_note(opened, as_json=as_json)
    with ProgressConsole() as show:
        report = tune(opened, data, variants, rows, show)
    if write and report.best:
        write_job_file(opened, with_best(opened, report.best))
        report = replace(report, written=True)
    emit(report.to_json(), as_json, lambda: _print_tuned(report, opened.path))


def _print_tuned(report: TuneReport, job_file: Path) -> None:
    columns = ["options", "rows/s", "gain", "rounds differ by", "prompts"]
    table("", columns, [_cells(each) for each in report.tried], right=columns[1:], free=["options"])
    for each in report.tried:
        if each.problem is not None:
            tell(f"{each.text} could not be tried: {each.problem}")
    if not report.best:
        tell("None is faster than the job's own options by more than rounds differ.")
        return
    best = next(each for each in report.tried if each.options == report.best)
    done = (
        f"They are in {job_file} now."
        if report.written
        else f"batchinfer tune {report.job} --write puts them into the job file."
    )
    tell(f"Fastest: {best.text}, by {percent(best.gain)}. {done}")


def _cells(tried: TriedOptions) -> list[str]:
    spread = "" if tried.spread is None else percent(tried.spread)
    rate = "-" if tried.rows_per_second is None else f"{tried.rows_per_second:.1f}"
    return [tried.text, rate, "" if not tried.options else percent(tried.gain), spread, f"{tried.rows:,}"]
