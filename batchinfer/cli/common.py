"""Shared by several commands: the JOB argument, --json, COLUMN=VALUE, tables."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import click

from batchinfer import errors
from batchinfer.cli.values import Day, OneOf, PathValue, unexpected
from batchinfer.core.home import JobData, data_folder, job_names, require_folder
from batchinfer.core.keys import JOB_NAME
from batchinfer.core.output import OutputFile, OutputFormat
from batchinfer.core.records import Info
from batchinfer.errors import NotFound, UsageError, did_you_mean, shortened

if TYPE_CHECKING:
    from rich.table import Table

    from batchinfer.job.reader import Job

WIDE = 60  # characters of a cell
LONG_WORD = 16  # characters of a word that is not broken in a table; longer ones are paths and the like
BETWEEN = 2  # characters between two columns of a table

job_argument = click.argument("job")
counted = errors.counted
FORMATS = tuple(OutputFormat)
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
_DATE = "batchinfer.date"  # where the context has it: `open_job` gives it to the job
_date_option = click.option(
    "--date",
    type=Day(),
    expose_value=False,
    callback=lambda context, _option, day: context.meta.update({_DATE: day}),
    metavar="YYYY-MM-DD",
    help="The list of that date, where input.path has {date:…}; else the newest is taken.",
)


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


def open_job(name: str) -> tuple[Job, JobData]:
    """The job of that name or path, or the one that the data folder knows by that name; and its part of the data folder."""
    from batchinfer.job import reader

    try:
        job = reader.load(name, os.environ)
    except reader.NoJobFile:
        known = _known_job(name)
        if known is None:
            raise
        job = known
    return at_date(job), JobData(data_dir(), job.name)


def at_date(job: Job) -> Job:
    """The job with the list of the date that the command was given."""
    context = click.get_current_context()
    day = context.meta.get(_DATE)
    if day is None:
        return job
    if context.params.get("input_path") is not None:
        raise UsageError("--input names a list, and --date chooses one of the job's: give one of the two.")
    return job.at_date(day)


def _known_job(name: str) -> Job | None:
    """The job whose file the data folder has noted under this name, if it still is there, and has that name."""
    from batchinfer.job import reader

    bound = JobData(data_dir(), name).record().get("job_file") if re.fullmatch(JOB_NAME, name) else None
    if bound is None or not Path(bound).is_file():
        return None
    job = reader.load(bound, os.environ)
    return job if job.name == name else None


def data_dir() -> Path:
    """The data folder that the command was given."""
    return data_folder(click.get_current_context().find_root().obj, os.environ)


def model_note(job: Job, *, as_json: bool) -> None:
    """Tells people once that the bundled model is a small one, whatever the job; machines never."""
    from batchinfer.engines.bundled import NAME, NOTICE, PREFIX, noted_file

    model, noted = job.spec.model, noted_file()
    if as_json or model is None or model.id != PREFIX + NAME or noted.exists():
        return
    click.secho(NOTICE, dim=True, err=True)
    with contextlib.suppress(OSError):  # without such a folder it is told again
        noted.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        noted.touch()


def served_data(name: str) -> JobData:
    """The data of a job by its name, or by its job file; a served version needs no job file.

    Raises NotFound where the data folder has nothing of the job.
    """
    data = JobData(data_dir(), name)
    if not (re.fullmatch(JOB_NAME, name) and data.is_known):
        from batchinfer.job import reader  # which takes as long as all else that a look-up loads

        try:
            data = JobData(data.root, reader.load(name, os.environ).name)
        except reader.NoJobFile as exc:
            if re.fullmatch(JOB_NAME, name):
                require_folder(data.root)
                raise _no_job(name, data.root) from exc
            raise
    data.require()
    return data


def _no_job(name: str, root: Path) -> NotFound:
    """The error for a job that neither the data folder nor ./jobs has."""
    known = job_names(root)
    there = f"the data folder has {', '.join(known)}." if known else "the data folder has no jobs."
    return NotFound(
        f"There is no job {name}, neither in the data folder {root} nor as jobs/{name}/job.yaml",
        fix=did_you_mean(name, known) or there,
    )


def dim(text: str) -> None:
    """Tells on stderr, in a low voice, how it goes."""
    click.secho(text, dim=True, err=True)


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


def emit(value: Any, as_json: bool, text: Callable[[], None]) -> None:
    """Prints a result, for a machine or for a person."""
    if as_json:
        click.echo(json.dumps(value, ensure_ascii=False, default=str))
    else:
        text()


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    right: Sequence[str] = (),
    free: Sequence[str] = (),
    colours: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Prints a table as wide as the terminal. Where that is too narrow, columns of free text are broken at words.

    What is too wide even so comes in several tables, each with the first column; elsewhere than on a terminal in one.
    right: columns whose values stand to the right. free: columns of free text; values of all others stay whole.
    colours: of cells, by what is in them.
    """
    from rich.console import Console
    from rich.text import Text

    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    inside = [[name, *(row[place] for row in texts)] for place, name in enumerate(columns)]
    narrowest = [_narrowest(each, free=each[0] in free) for each in inside]
    widest = [_narrowest(each, free=False) for each in inside]
    console = Console()
    parts = _parts(narrowest, console.width) if console.is_terminal else [list(range(len(columns)))]
    if title:  # not the table's own, which would be broken at its width
        console.print(Text(title, style="table.title"), soft_wrap=True)
    for places in parts:
        widths = _fitting([(narrowest[place], widest[place]) for place in places], console.width)
        drawn = _drawn([(columns[place], width) for place, width in zip(places, widths, strict=True)], right, free)
        for row in texts:
            drawn.add_row(*(Text(row[place], style=colours.get(row[place], "")) for place in places))
        # A narrow terminal breaks lines, but no column is lost.
        console.width = max(console.width, _width(widths))
        console.print(drawn)


def _drawn(columns: Sequence[tuple[str, int]], right: Sequence[str], free: Sequence[str]) -> Table:
    """A table without rows. columns: each with its width."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    drawn = Table(header_style="bold", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, width in columns:
        justify: Literal["right", "left"] = "right" if name in right else "left"
        drawn.add_column(name, justify=justify, overflow="fold", no_wrap=name not in free, width=width)
    return drawn


def _parts(widths: Sequence[int], room: int) -> list[list[int]]:
    """The places of the columns of each table, so that each is as narrow as the room if it can be."""
    parts = [[0]] if widths else []
    for place in range(1, len(widths)):
        if len(parts[-1]) > 1 and _width([widths[each] for each in (*parts[-1], place)]) > room:
            parts.append([0])
        parts[-1].append(place)
    return parts


def _fitting(ranges: Sequence[tuple[int, int]], room: int) -> list[int]:
    """The columns' widths: what the room lacks is taken from the widest first, as far as each can be narrowed.

    ranges: of each column, its least width and the one that breaks nothing.
    """
    widths = [min(most, max(least, room)) for least, most in ranges]
    while _width(widths) > room:
        broader = [place for place, (least, _) in enumerate(ranges) if widths[place] > least]
        if not broader:
            break
        widths[max(broader, key=lambda place: widths[place])] -= 1
    return widths


def _width(columns: Sequence[int]) -> int:
    """Of a table with columns of these widths."""
    return sum(columns) + len(columns) * BETWEEN


def _narrowest(texts: Sequence[str], *, free: bool) -> int:
    """The least width of a column: free text can be broken, but not within its words."""
    from rich.cells import cell_len

    parts = " ".join(texts).split() if free else texts
    widest = max(map(cell_len, parts), default=0)
    return min(widest, LONG_WORD) if free else widest


def cell(value: object, most: int = WIDE) -> str | None:
    """A value in one line of a table, shortened if it is wide."""
    return None if value is None else shortened(" ".join(str(value).split()), most)


def tell(text: str) -> None:
    """Prints a sentence, broken at words on a terminal."""
    from rich.console import Console

    console = Console()
    console.print(text, highlight=False, markup=False, soft_wrap=not console.is_terminal)


def percent(share: float | None) -> str:
    """A share as people read it."""
    return "-" if share is None else f"{share:.1%}"


def warn(text: str) -> None:
    """Prints a sentence to stderr, beside what the command prints."""
    click.echo(text, err=True)


class Terminal:
    """The `Person` at a terminal, if there is one."""

    def info(self, text: str) -> None:
        warn(text)

    def confirm(self, text: str, *, typed: str | None = None) -> bool | None:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return None
        try:
            if typed is None:
                return click.confirm(text, default=False, err=True)
            question = f"{text} Type {typed} to continue, or nothing to stop"
            return bool(click.prompt(question, default="", show_default=False, err=True).strip() == typed)
        except BaseException:
            click.echo(err=True)  # Ctrl-C left the question's line open
            raise


def output_file(name: str, chosen: str | None, as_json: bool, formats: Sequence[OutputFormat] = FORMATS) -> OutputFile:
    """The file that a command is to write. Raises UsageError."""
    output = OutputFile.of(name, chosen, formats)
    if output.path is None and as_json:
        raise UsageError("With --json the report goes to standard output, so that - cannot: name a file.")
    return output


def teller(output: OutputFile | None) -> Info:
    """What tells people of a file: not on standard output, if that is the file."""
    return warn if output is not None and output.path is None else tell
