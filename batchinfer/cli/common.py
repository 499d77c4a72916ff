"""Shared by several commands: the JOB argument, --json, COLUMN=VALUE, tables."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from batchinfer.core.home import JobData, data_folder
from batchinfer.core.keys import JOB_NAME
from batchinfer.core.output import OutputFile, OutputFormat
from batchinfer.errors import UsageError, shortened
from batchinfer.job import reader
from batchinfer.job.reader import Job

WIDE = 60  # characters of a cell

job_argument = click.argument("job")
FORMATS = tuple(OutputFormat)
format_option = click.option(
    "--format",
    "chosen",
    type=click.Choice([each.value for each in FORMATS]),
    help="The format, where - stands for standard output.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON value for machines.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
input_option = click.option(
    "--input",
    "input_path",
    type=click.Path(path_type=Path),
    callback=lambda _context, _option, path: None if path is None else path.absolute(),
    metavar="PATH",
    help="A Parquet file, glob or folder in place of the job's.",
)


def open_job(name: str) -> tuple[Job, JobData]:
    """The job of that name, and its part of the data folder."""
    job = reader.load(name, os.environ)
    return job, JobData(data_dir(), job.name)


def data_dir() -> Path:
    """The data folder that the command was given."""
    return data_folder(click.get_current_context().find_root().obj, os.environ)


def served_data(name: str) -> JobData:
    """The data of a job by its name, or by its job file; a served version needs no job file."""
    root = data_dir()
    data = JobData(root, name)
    if re.fullmatch(JOB_NAME, name) and any(path.exists() for path in (data.folder / "job.json", data.versions)):
        return data
    return JobData(root, reader.load(name, os.environ).name)


def pairs(arguments: Sequence[str]) -> dict[str, str]:
    """COLUMN=VALUE arguments. Raises UsageError."""
    found = {}
    for argument in arguments:
        name, sign, value = argument.partition("=")
        if not sign or not name:
            raise UsageError(f"{argument} should be COLUMN=VALUE, such as language=de.")
        found[name] = value
    return found


def emit(value: Any, as_json: bool, text: Callable[[], None]) -> None:
    """Prints a result, for a machine or for a person."""
    if as_json:
        click.echo(json.dumps(value, ensure_ascii=False, default=str))
    else:
        text()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = ()) -> None:
    """Prints a table as wide as the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(
        title=title or None,
        title_justify="left",
        header_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in columns:
        drawn.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=name in right)
    for row in rows:
        drawn.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    Console().print(drawn)


def cell(value: object) -> str | None:
    """A value in one line of a table, shortened if it is wide."""
    return None if value is None else shortened(" ".join(str(value).split()), WIDE)


def query_text(query: Mapping[str, Any] | None) -> str:
    """A lookup key as it is written on the command line."""
    return ", ".join(f"{name}={value}" for name, value in (query or {}).items())


def tell(text: str) -> None:
    """Prints a sentence, broken at words on a terminal."""
    from rich.console import Console

    console = Console()
    console.print(text, highlight=False, markup=False, soft_wrap=not console.is_terminal)


def percent(share: float | None) -> str:
    """A share as people read it."""
    return "-" if share is None else f"{share:.1%}"


def counted(count: int, what: str) -> str:
    """How many of a thing there are, such as 1 row or 2,000 rows."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def warn(text: str) -> None:
    """Prints a sentence to stderr, beside what the command prints."""
    click.echo(text, err=True)


def output_file(name: str, chosen: str | None, as_json: bool, formats: Sequence[OutputFormat] = FORMATS) -> OutputFile:
    """The file that a command is to write. Raises UsageError."""
    output = OutputFile.of(name, chosen, formats)
    if output.path is None and as_json:
        raise UsageError("With --json the report goes to standard output, and so does -: name a file to write.")
    return output


def teller(output: OutputFile | None) -> Callable[[str], None]:
    """What tells people of a file: not on standard output, if that is the file."""
    return warn if output is not None and output.path is None else tell
