"""Input files from people: CSV as spreadsheets write it → Parquet in the scratch folder; Parquet as it is.

Python's own csv module reads them: it refuses a quote that is never closed, and knows in which line it is.
"""

from __future__ import annotations

import csv
import itertools
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.core.database import TEXT_ROWS
from batchinfer.errors import InputError
from batchinfer.inputs.list_file import conversion, is_parquet, unreadable

MOST_CELL = 16 << 20  # characters; a quote that is never closed would else read all of a large file into one cell


def as_parquet(path: Path, scratch: Path, line: str | None = None, *, rows_at_once: int = TEXT_ROWS) -> Path:
    """A Parquet file with what a CSV holds: all columns text, empty cells null. The path of a Parquet file is returned.

    The CSV is UTF-8 with or without a byte-order mark, has commas or semicolons between its cells, and a header. The
    file is made below `scratch` and has the CSV's name. Raises InputError, with the line.

    line: the name of a column to add, with the line in which each row begins; the header is line 1.
    rows_at_once: how many are held in memory.
    """
    if path.suffix.lower() != ".csv":
        return _checked(path)
    target = Path(tempfile.mkdtemp(dir=scratch)) / path.name
    try:
        _write(path, target, line, rows_at_once)
    except UnicodeDecodeError as exc:
        raise InputError(
            f"{path}, line {_first_not_utf8(path)}: the text is not UTF-8: save the file as CSV in UTF-8."
        ) from exc
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


def _write(path: Path, target: Path, line: str | None, rows_at_once: int) -> None:
    csv.field_size_limit(MOST_CELL)
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        delimiter = ";" if first.count(";") > first.count(",") else ","
        rows = _rows(path, itertools.chain([first], file), delimiter)
        _, names = next(rows)
        texts = pa.schema([(name, pa.string()) for name in names])
        schema = texts if line is None else texts.append(pa.field(line, pa.int64()))
        with pq.ParquetWriter(target, schema) as writer:
            while batch := list(itertools.islice(rows, rows_at_once)):
                columns = zip(*(row for _, row in batch), strict=True)
                cells = [pa.array([cell or None for cell in column], pa.string()) for column in columns]
                cells += [] if line is None else [pa.array([number for number, _ in batch], pa.int64())]
                writer.write_batch(pa.record_batch(cells, schema=schema))


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
            fault = _fault_of_row(row, width) if width else _fault_of_header(row)
            if fault:
                raise InputError(f"{path}, line {reader.line_num}: {fault}")
            width = width or len(row)
            yield begun, row + [""] * (width - len(row))
    except csv.Error as exc:
        raise InputError(
            f"{path}, line {reader.line_num}: this is not valid CSV: {exc}. Look for a quote that is not closed."
        ) from exc
    if not width:
        raise InputError(f"{path} is empty: its first line should name the columns.")


def _fault_of_header(names: list[str]) -> str | None:
    for number, name in enumerate(names, 1):
        if not name:
            return f"column {number} of the header has no name: give it one, or remove the column."
        if names.count(name) > 1:
            return f"the header has the column {name} more than once: rename one of them."
    return None


def _fault_of_row(row: list[str], width: int) -> str | None:
    if len(row) <= width:
        return None
    return f"the row has {len(row)} cells, but the header has {width}: put quotes around cells that hold the delimiter."


def _first_not_utf8(path: Path) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0
