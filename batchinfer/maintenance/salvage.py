"""What can still be read of a damaged cache file: in pieces, so that a bad page costs only the rows beside it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from batchinfer.cache.schema import MIGRATIONS
from batchinfer.core.database import FULL, TEXT_ROWS, database_file, one, one_integer, scratch_database
from batchinfer.core.duckdb_paths import database_place
from batchinfer.core.files import os_errors
from batchinfer.core.home import JobData
from batchinfer.core.sql import literal
from batchinfer.errors import StoreError

KEPT = "cache.damaged-"  # what the names of damaged files begin with that a repair kept
TABLES = (
    "generations", "failures", "imports", "import_keys", "runs", "run_questions", "versions", "long_texts", "chunks",
)  # fmt: skip
FEWEST_ROWS = 2048  # that DuckDB stores together
PAGE = 4096
HEADERS = (0, PAGE, 2 * PAGE)  # what the file is; and where its content begins, twice: DuckDB writes them in turn


@dataclass(frozen=True, slots=True)
class SalvagedTable:
    """What became of a table.

    rows: that could be read.
    lost: that could not; None where nobody can say how many there were.
    """

    rows: int
    lost: int | None

    def without(self, gone: int) -> SalvagedTable:
        """What it is if so many of its rows are of no use."""
        return SalvagedTable(self.rows - gone, None if self.lost is None else self.lost + gone)


class _Unreadable(Exception):
    """DuckDB cannot read this part of the file."""


def kept_files(data: JobData) -> list[Path]:
    """Damaged caches that repairs kept."""
    return sorted(path for path in data.folder.glob(f"{KEPT}*") if path.suffix == ".duckdb")


def salvage(damaged: Path, target: Path, scratch: Path) -> dict[str, SalvagedTable]:
    """Copies what can be read into the cache at `target`, whose tables are there and empty. Raises StoreError.

    target: one of `duckdb_paths.database_place`; it is attached again after each part that cannot be read.
    """
    source, is_latest = _openable(damaged, scratch)
    if source is None:
        return dict.fromkeys(TABLES, SalvagedTable(0, None))
    read = {name: _salvage_table(source, target, scratch, name) for name in TABLES}
    return read if is_latest else {name: SalvagedTable(table.rows, None) for name, table in read.items()}


def _openable(damaged: Path, scratch: Path) -> tuple[Path | None, bool]:
    """The file, or else a copy of it with other headers, where DuckDB can open it; and whether that is its latest state."""
    if _opens(damaged, scratch):
        return damaged, True
    has_log = damaged.with_name(f"{damaged.name}.wal").exists()  # which does not go along
    copy = scratch / "damaged.duckdb"
    with os_errors(copy):
        shutil.copyfile(damaged, copy)
        own = _headers(copy)
        first = _headers(_new_database(scratch))[0]
    for page in (own[0], first):
        for begins in (own[1:], (own[1], own[1]), (own[2], own[2])):
            with os_errors(copy), copy.open("r+b") as file:
                file.write(b"".join([page, *begins]))
            if _opens(copy, scratch):
                return copy, begins == own[1:] and not has_log
    return None, False


def _new_database(scratch: Path) -> Path:
    path = scratch / "new.duckdb"
    with database_file(path, read_only=False):
        pass  # its headers are written when it is made
    return path


def _headers(path: Path) -> tuple[bytes, bytes, bytes]:
    with path.open("rb") as file:
        data = file.read(3 * PAGE)
    first, second, third = (data[start : start + PAGE].ljust(PAGE, b"\0") for start in HEADERS)
    return first, second, third


def _opens(path: Path, scratch: Path) -> bool:
    """Whether DuckDB can tell which tables there are. Raises StoreError for a cache that a newer program wrote."""
    try:
        with _both(path, None, scratch) as db:
            count = one(db, "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'damaged'")
    except _Unreadable:
        return False
    with contextlib.suppress(_Unreadable), _both(path, None, scratch) as db:
        if one(db, "SELECT count(*) FROM damaged.migrations") > len(MIGRATIONS):
            raise StoreError(f"{path} was written by a newer batchinfer: repair it with that.")
    return bool(count)


@contextlib.contextmanager
def _both(source: Path, target: Path | None, scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with the schemas `damaged` and `fresh`. Raises _Unreadable, or StoreError where the disk is full."""
    try:
        with scratch_database(scratch) as db, database_place(source, read_only=True) as place:
            db.execute(f"ATTACH {literal(place)} AS damaged (READ_ONLY)")
            if target is not None:
                db.execute(f"ATTACH {literal(str(target))} AS fresh")
            yield db
            for name in ("damaged", "fresh")[: 1 if target is None else 2]:
                db.execute(f"DETACH {name}")
    except StoreError as exc:
        if not isinstance(exc.__cause__, duckdb.Error) or any(sign in str(exc.__cause__) for sign in FULL):
            raise
        raise _Unreadable from exc


def _salvage_table(source: Path, target: Path, scratch: Path, name: str) -> SalvagedTable:
    try:
        with _both(source, target, scratch) as db:
            columns, last = _common_columns(db, name), one(db, f"SELECT coalesce(max(rowid), -1) FROM damaged.{name}")
    except _Unreadable:
        return SalvagedTable(0, None)
    spans = [(first, min(first + TEXT_ROWS, last + 1)) for first in range(0, last + 1, TEXT_ROWS)]
    spans.reverse()  # the first is taken first: pieces of texts stay in their order
    rows, lost = 0, 0
    while spans:
        try:
            with _both(source, target, scratch) as db:
                while spans:
                    rows += one(db, f"INSERT INTO fresh.{name} ({columns}) SELECT {columns} {_rows(name, spans[-1])}")
                    spans.pop()
        except _Unreadable:
            first, end = spans.pop()
            middle = (first + end) // 2
            if end - first > FEWEST_ROWS:
                spans += [(middle, end), (first, middle)]
            else:
                lost += _count(source, scratch, name, (first, end))
    return SalvagedTable(rows, lost)


def _rows(name: str, span: tuple[int, int]) -> str:
    return f"FROM damaged.{name} WHERE rowid >= {span[0]} AND rowid < {span[1]}"


def _common_columns(db: duckdb.DuckDBPyConnection, name: str) -> str:
    """Those of a table that both have, one of which may be older."""
    sql = "SELECT column_name FROM duckdb_columns() WHERE database_name = ? AND table_name = ? ORDER BY column_index"
    old, new = ([column for (column,) in db.execute(sql, [place, name]).fetchall()] for place in ("damaged", "fresh"))
    return ", ".join(column for column in old if column in new)


def _count(source: Path, scratch: Path, name: str, span: tuple[int, int]) -> int:
    """How many rows were there, which needs none of their values."""
    try:
        with _both(source, None, scratch) as db:
            return one_integer(db, f"SELECT count(*) {_rows(name, span)}")
    except _Unreadable:
        return span[1] - span[0]
