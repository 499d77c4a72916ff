"""Input files from people: CSV as spreadsheets write it → Parquet in the scratch folder; Parquet as it is.

Python's own csv module reads them: it refuses a quote that is never closed, and knows in which line it is.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import itertools
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.core.database import TEXT_ROWS
from batchinfer.core.files import os_errors
from batchinfer.core.memory import batch_bytes
from batchinfer.errors import InputError
from batchinfer.inputs.list_file import MOST_LINE, conversion, is_parquet, readable, unreadable

DELIMITERS = ",;\t"
SUFFIXES = (".csv", ".tsv")
ZIP = b"PK\x03\x04"  # what the files of spreadsheets begin with
MOST_COLUMNS = 16_384  # as many as a spreadsheet can have
TITLED = "the file begins with a title, as Numbers writes the names of tables, remove that line."
MOST_CELL = 16 << 20  # characters; a quote that is never closed would else read all of a large file into one cell


def as_parquet(
    path: Path, scratch: Path, line: str | None = None, known: Sequence[str] = (), *, rows_at_once: int = TEXT_ROWS
) -> Path:
    """A Parquet file with what a CSV holds: all columns text, empty cells null. The path of a Parquet file is returned.

    The CSV is UTF-8 or UTF-16, has commas, semicolons or tabs between its cells, and a header.
    The file is made below `scratch` and has the CSV's name. Raises InputError, with the line, and for what is neither,
    and StoreError where it cannot be made.

    line: the name of a column to add, with the line in which each row begins; the header is line 1.
    known: columns that are called so whatever their case in the header.
    rows_at_once: how many are held in memory.
    """
    if path.suffix.lower() not in SUFFIXES:
        return _checked(path)
    target = Path(tempfile.mkdtemp(dir=scratch)) / path.name
    try:
        _write(path, target, line, known, rows_at_once)
    except UnicodeDecodeError as exc:
        raise InputError(f"{path}, line {_first_not_utf8(path)} is not UTF-8: save the file as CSV in UTF-8.") from exc
    except OSError as exc:
        raise InputError(f"{path} cannot be read: {exc.strerror}.") from exc
    return target


def _checked(path: Path) -> Path:
    """The path of a Parquet file, which may be damaged. Raises InputError for what is none."""
    try:
        if is_parquet(path):
            return path
    except OSError as exc:
        raise unreadable(path, exc) from exc
    raise InputError(f"{path} is neither CSV nor Parquet", fix=conversion(path))


def header(path: Path) -> list[str]:
    """The names of a CSV's columns. Raises InputError, OSError or UnicodeDecodeError."""
    with _opened(path) as (lines, delimiter):
        return next(_rows(path, lines, delimiter))[1]


def title_hint(name: str, wanted: Collection[str], there: Collection[str]) -> str:
    """A sentence more where a CSV has none of the columns that are wanted: a title without a delimiter passes for a header."""
    return f" If {TITLED}" if name.lower().endswith(SUFFIXES) and not set(wanted) & set(there) else ""


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Iterable[str], str]]:
    """The lines of a CSV, and what stands between its cells."""
    csv.field_size_limit(MOST_CELL)
    with path.open(encoding=_encoding(path), newline="") as file:
        lines = _lines(path, file)
        first = next(lines, "").lstrip("\ufeff")  # one mark more, of files that were put together
        if said := re.fullmatch(r"sep=([^\r\n\0\"])[\r\n]*", first):  # as Excel has it; a line all the same
            yield itertools.chain([first[len("sep=;") :]], lines), said[1]
            return
        plain = re.sub(r'"[^"]*("|$)', "", first)
        yield (
            itertools.chain([first], lines),
            max(DELIMITERS, key=lambda sign: (plain.count(sign), -DELIMITERS.index(sign))),
        )


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    """The lines of a file. Raises InputError for one that is not to be held in memory, as of a file without line ends."""
    number = 0
    while line := file.readline(MOST_LINE):
        number += 1
        if len(line) == MOST_LINE:
            raise InputError(f"{path}, line {number} has {MOST_LINE >> 20} MB or more: write a row a line.")
        yield line


def _encoding(path: Path) -> str:
    """UTF-16 where the file begins with its byte-order mark, or with two characters of ASCII in two bytes each.

    Raises InputError for a spreadsheet's own file, whatever it is named.
    """
    with path.open("rb") as file:
        first = file.read(4)
    if first == ZIP:
        raise InputError(
            f"{path} is no CSV, but a spreadsheet or another zip file", fix=conversion(path.with_suffix(".xlsx"))
        )
    if first[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    evenly, oddly = first[::2], first[1::2]
    if oddly == b"\0\0" and 0 not in evenly:
        return "utf-16-le"
    return "utf-16-be" if evenly == b"\0\0" and 0 not in oddly else "utf-8-sig"


def _write(path: Path, target: Path, line: str | None, known: Sequence[str], rows_at_once: int) -> None:
    with _opened(path) as (lines, delimiter):
        rows = _rows(path, lines, delimiter)
        _, names = next(rows)
        names = _called(names, known)
        texts = pa.schema([(name, pa.string()) for name in names])
        schema = texts if line is None else texts.append(pa.field(line, pa.int64()))
        with os_errors(target), pq.ParquetWriter(target, schema) as writer:
            for batch in readable(path, _batches(rows, rows_at_once)):
                columns = zip(*(row for _, row in batch), strict=True)
                cells = [pa.array([cell or None for cell in column], pa.string()) for column in columns]
                cells += [] if line is None else [pa.array([number for number, _ in batch], pa.int64())]
                writer.write_batch(pa.record_batch(cells, schema=schema))


def _batches(rows: Iterator[tuple[int, list[str]]], rows_at_once: int) -> Iterator[list[tuple[int, list[str]]]]:
    """The rows, some at a time: few where their cells are long."""
    batch, size, most = list[tuple[int, list[str]]](), 0, batch_bytes()
    for row in rows:
        batch.append(row)
        size += sum(map(len, row[1]))
        if len(batch) == rows_at_once or size > most:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _rows(path: Path, lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The header, then rows that are as long, each with the line in which it begins; empty rows are left out.

    Spreadsheets leave out the empty cells at the end of a row, or write a row of nothing but delimiters. Raises InputError.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    width, next_line = 0, 1
    try:
        for row in reader:
            begun, next_line = next_line, reader.line_num + 1
            if not any(row):
                continue
            if not width:
                row[:] = [name.strip() for name in row]
            while len(row) > max(width, 1) and not row[-1]:  # columns beyond the table
                row.pop()
            fault = _fault_of_row(row, width) if width else _fault_of_header(row)
            if fault:
                raise InputError(f"{path}, line {reader.line_num}: {fault}")
            width = width or len(row)
            yield begun, row + [""] * (width - len(row))
    except csv.Error as exc:
        if "field larger" in str(exc):
            said = f"a cell has more than {MOST_CELL >> 20} MB of text, which cannot be used, or a quote before it is not closed."
        else:
            said = f"this is not valid CSV: {exc}. Look for a quote that is not closed."
        raise InputError(f"{path}, line {reader.line_num}: {said}") from exc
    if not width:
        raise InputError(f"{path} is empty: its first line should name the columns.")


def _called(names: list[str], known: Sequence[str]) -> list[str]:
    """The names of the columns, those that are known in the case in which they are."""
    lowered = [name.lower() for name in names]
    alone = {name.lower(): name for name in known if lowered.count(name.lower()) == 1}
    return [name if name in known else alone.get(name.lower(), name) for name in names]


def _fault_of_header(names: list[str]) -> str | None:
    if len(names) > MOST_COLUMNS:
        return f"the header has {len(names):,} columns, and at most {MOST_COLUMNS:,} can be read: leave out what is not needed."
    known = set[str]()
    for number, name in enumerate(names, 1):
        if not name:
            return f"column {number} of the header has no name: give it one, or remove the column."
        if "\0" in name:
            return f"the name of column {number} has a NUL character: remove it, or save the file as CSV in UTF-8."
        if name in known:
            return f"the header has the column {name} more than once: rename one of them."
        known.add(name)
    return None


def _fault_of_row(row: list[str], width: int) -> str | None:
    if len(row) <= width:
        return None
    said = f"the row has {len(row)} cells, but the header has {width}: put quotes around cells that hold the delimiter"
    return f"{said}, or, if {TITLED}" if width == 1 else f"{said}."


def _first_not_utf8(path: Path) -> int:
    decoder, number = codecs.getincrementaldecoder("utf-8")(), 1
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            try:
                decoder.decode(piece)
            except UnicodeDecodeError as exc:
                return number + exc.object.count(b"\n", 0, exc.start)
            number += piece.count(b"\n")
    return number
