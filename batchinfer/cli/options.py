"""Options and arguments that several commands take, and what their values mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from batchinfer.cli.values import Day, OneOf, PathValue, unexpected
from batchinfer.core.output import OutputFile, OutputFormat
from batchinfer.errors import UsageError, shortened

job_argument = click.argument("job")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON value for machines.")
yes_option = click.option(
    "--yes", is_flag=True, help="Answer yes to all that the command asks; each question is shown."
)
_path_option = click.option(
    "--input",
    "input_path",
    type=PathValue(),
    callback=lambda _context, _option, path: None if path is None else path.absolute(),
    metavar="PATH",
    help="A file of Parquet, CSV or JSON lines, a glob or a folder, instead of the job's own list.",
)
DATE = "batchinfer.date"  # where the context has it: `open_job` gives it to the job
_date_option = click.option(
    "--date",
    type=Day(),
    expose_value=False,
    callback=lambda context, _option, day: context.meta.update({DATE: day}),
    metavar="YYYY-MM-DD",
    help="The list of that date, where input.path has {date:…}; else the newest is taken.",
)
FORMATS = tuple(OutputFormat)


def input_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options by which a person chooses the list."""
    return _path_option(_date_option(command))


def format_option(formats: Sequence[OutputFormat] = FORMATS) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The option --format of a command that writes these formats."""
    return click.option(
        "--format",
        "chosen",
        type=OneOf(formats),
        help="The format, where - stands for standard output.",
    )


def output_file(name: str, chosen: str | None, as_json: bool, formats: Sequence[OutputFormat] = FORMATS) -> OutputFile:
    """The file that a command is to write. Raises UsageError."""
    output = OutputFile.of(name, chosen, formats)
    if output.path is None and as_json:
        raise UsageError("With --json the report goes to standard output, so that - cannot: name a file.")
    return output


def pairs(arguments: Sequence[str], names: Sequence[str] = (), *, option: str | None = None) -> dict[str, str]:
    """COLUMN=VALUE arguments. names: known columns, which may have a = in them. option: whose values they are.

    Raises UsageError, for a column given twice, too: one of the two values would be left out without a word.
    """
    found: dict[str, str] = {}
    before = "" if option is None else f"{option}: "
    for argument in arguments:
        name = max((known for known in names if argument.startswith(f"{known}=")), key=len, default="")
        name, sign, value = (name, "=", argument[len(name) + 1 :]) if name else argument.partition("=")
        if not sign or not name:
            raise UsageError(f"{before}{unexpected('COLUMN=VALUE, such as language=de', argument)}")
        if name in found:
            raise UsageError(
                f"{before}{name} is given twice, as {shortened(found[name])} and as {shortened(value)}",
                fix="give one value for each column.",
            )
        found[name] = value
    return found
