"""review, import: the commands with which people judge predictions, and bring their own."""

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
from batchinfer.cli.tables import table
from batchinfer.cli.terminal import emit, tell, teller, warn
from batchinfer.cli.values import Integer, PathText
from batchinfer.errors import UsageError, counted
from batchinfer.review.sheet import FORMATS

if TYPE_CHECKING:
    from batchinfer.review.allowed import Allowance
    from batchinfer.review.ingest import Ingested
    from batchinfer.review.predictions import ImportReport

_COUNTS = ["rows", "accepted", "rejected", "corrected"]

_HINTS = {  # by what is judged
    "value": "",
    "term": "\nHere people judge the term, whatever the model said of it: accept means that the term is right, also where "
    "the prediction is No; reject, that it is wrong.",
}


@click.command("review")
@job_argument
@click.option(
    "--out", required=True, type=PathText(), metavar="FILE", help="A .csv or .parquet file; - for standard output."
)
@format_option(FORMATS)
@click.option(
    "--where",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Only rows with this value; may be repeated for other columns.",
)
@input_option
@yes_option
@json_option
def review_(
    job: str, out: str, chosen: str | None, where: tuple[str, ...], input_path: Path | None, yes: bool, as_json: bool
) -> None:
    """Write what people should look at: what is new or changed, worst first.

    Mark each row's verdict as accept, reject or correct (with the corrected value), then: batchinfer import JOB FILE.
    Asks first if the list comes from another place than the served version's.
    """
    from batchinfer.cli.progress import ProgressConsole
    from batchinfer.planning.prepare import Options
    from batchinfer.review.export import export_review

    output = output_file(out, chosen, as_json, FORMATS)
    opened, data = open_job(job)
    options, only = Options(input=input_path, yes=yes), pairs(where, opened.spec.input.key, option="--where")
    with ProgressConsole() as show:
        review = export_review(opened, data, options, output, only, show)
    marked = "FILE" if output.path is None else out
    done = (
        f"Wrote {counted(review.rows, 'row')} to {output}: {review.new:,} new, {review.changed:,} changed. "
        f"Mark verdict as accept, reject or correct, then: batchinfer import {job} {marked}{_HINTS[review.subject]}"
    )
    nothing = f"There is nothing to review; {output} holds the header only."
    emit(review.to_json(), as_json, lambda: teller(output)(done if review.rows else nothing))


@click.command("import")
@job_argument
@click.argument("file", type=PathText(), required=False, metavar="[FILE]")
@click.option("--author", help="Who made the predictions or verdicts, where the file has no column author.")
@input_option
@click.option(
    "--allow",
    "allowed",
    metavar="values,keys",
    help="Import values that the job could never give, or keys that its list does not have, or both.",
)
@click.option("--list", "list_", is_flag=True, help="List all imports.")
@click.option("--undo", type=Integer(min=1), metavar="ID", help="Undo an import.")
@json_option
def import_(
    job: str,
    file: str | None,
    author: str | None,
    input_path: Path | None,
    allowed: str | None,
    list_: bool,
    undo: int | None,
    as_json: bool,
) -> None:
    """Import predictions made elsewhere, or a review that people have marked; they win over the model's.

    FILE has the job's key columns and a column prediction (score and author are optional), or is what batchinfer review
    wrote, with verdicts; --input is the list that it was made with. A value that the job could never give, or a key that
    the list does not have, refuses the file unless --allow names it.
    """
    from batchinfer.planning.prepare import Options
    from batchinfer.review import ingest, predictions

    allow = _allowances(allowed)
    opened, data = open_job(job)
    if sum([file is not None, list_, undo is not None]) != 1:
        raise UsageError("Give either a FILE, or --list, or --undo ID.")
    if list_:
        past = [row.to_json() for row in predictions.past_imports(data)]
        columns = ["import_id", "created_at", "kind", "author", *_COUNTS]
        rows = [[row[name] for name in columns] for row in past]
        none = f"No imports for {data.name} in the data folder {data.root}."
        emit(
            past,
            as_json,
            lambda: table("", columns, rows, right=_COUNTS, free=["author"]) if rows else click.echo(none),
        )
    elif undo is not None:
        undone = predictions.undo_import(opened, data, undo)
        emit(
            undone.to_json(),
            as_json,
            lambda: click.echo(f"Undid import {undo} ({counted(undone.rows, 'row')}). {_next(job)}"),
        )
    elif ingest.is_review(path := Path(str(file)).absolute(), opened.spec):
        if allow:
            raise UsageError(f"--allow goes with predictions, and {file} is a review.")
        review = ingest.import_review(opened, data, path, author, Options(input=input_path), warn)
        emit(review.to_json(), as_json, lambda: tell(_imported(review, job)))
    else:
        imported = predictions.import_predictions(opened, data, path, author, allow, input_path, warn)
        emit(imported.to_json(), as_json, lambda: tell(f"{_taken(imported)} {_next(job)}"))


def _allowances(text: str | None) -> list[Allowance]:
    """What --allow names. Raises UsageError."""
    from batchinfer.review.allowed import Allowance

    words = [] if text is None else [word.strip() for word in text.split(",")]
    if unknown := [word for word in words if word not in list(Allowance)]:
        raise UsageError(f"--allow: {unknown[0]} cannot be allowed; write {','.join(Allowance)}, or one of them.")
    return [Allowance(word) for word in words]


def _taken(report: ImportReport) -> str:
    """What an import of predictions came to, as a sentence."""
    parts = [f"Import {report.import_id}: {counted(report.rows, 'row')} imported"]
    if report.unfit:
        parts.append(f"{counted(report.unfit, 'value')} that the job could never give")
    if report.unlisted:
        parts.append(f"{counted(report.unlisted, 'key')} that the list does not have")
    return f"{', '.join(parts)}."


def _imported(review: Ingested, job: str) -> str:
    """What a review came to, as a sentence."""
    if review.import_id is None:
        return f"No row has a verdict ({review.not_judged:,} not judged): nothing was imported."
    counts = [f"{count:,} {name.replace('_', ' ')}" for name, count in review.to_json().items() if name != "import_id"]
    return f"Import {review.import_id}: {', '.join(counts)}. {_next(job)}"


def _next(job: str) -> str:
    return f"batchinfer publish {job} makes a version with it."
