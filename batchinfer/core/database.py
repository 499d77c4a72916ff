"""DuckDB: scratch databases of bounded memory, transactions, and its errors in our words."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from batchinfer.core import signals
from batchinfer.core.duckdb_paths import database_place, found_by_duckdb
from batchinfer.core.files import FIX_PERMISSIONS
from batchinfer.core.memory import table_memory
from batchinfer.core.parquet_batches import gathered
from batchinfer.core.sql import literal, quoted
from batchinfer.errors import StoreError

ROW_GROUP = 20_480  # a reader of predictions.parquet holds one in memory for each thread
COPY_OPTIONS = f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP})"

VECTOR = 2048  # rows that DuckDB works on together
# Rows that are held in memory at once, unless a caller says otherwise.
LIST_ROWS = 65_536  # of lists: keys and other short values
TEXT_ROWS = 16_384  # of predictions and of what people write: such texts may be long

UNWRITTEN = "CHECKPOINT during DETACH failed"  # of an attached file, whose log has the rest
CAUSE = "Original error: "  # what follows is why
# what DuckDB says of a full disk
FULL = ("No space left", "Disk quota exceeded", "Could not write all bytes", "failed to offload")
NEWER = ("newer version", "storage version", "serialization")
DAMAGED = ("Corrupt database file", "not a valid DuckDB database file", "Could not read enough bytes", "checksum")

_INSTANCES: dict[int, duckdb.DuckDBPyConnection] = {}  # by process number: an instance does not survive a fork
_IDLE: dict[int, list[duckdb.DuckDBPyConnection]] = {}  # instances that scratch databases were in
_NUMBERS = itertools.count(1)


@contextlib.contextmanager
def database_file(path: Path, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to one file, which is let go of at the end.

    The file is attached to the one instance of the process, which takes a millisecond; an instance of its own would
    register thousands of functions first, for twelve. Raises what DuckDB raises, StoreError or Busy.
    """
    with database_place(path, read_only=read_only) as place, _attached(place, read_only=read_only) as connection:
        yield connection


@contextlib.contextmanager
def _attached(place: str, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    connection = _instance().cursor()
    name = f"file_{next(_NUMBERS)}"
    try:
        connection.execute(f"ATTACH {literal(place)} AS {name}{' (READ_ONLY)' if read_only else ''}")
        connection.execute(f"USE {name}")
        yield connection
        _detach(connection, name)
    except BaseException as exc:
        with contextlib.suppress(duckdb.Error):  # what went wrong first is what matters
            _detach(connection, name)
        if isinstance(exc, duckdb.Error):
            _forsake_instance()
        raise
    finally:
        connection.close()


@contextlib.contextmanager
def query_engine() -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to query files and Arrow tables with, for who keeps no tables."""
    connection = _instance().cursor()
    try:
        yield connection
    finally:
        connection.close()


def detach(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Lets go of an attached file; returns whether the file holds all that was committed.

    Otherwise the disk was full, or would not be written. The log beside the file has the rest, and whoever opens it next tries again.
    """
    try:
        connection.execute(f"DETACH {name}")
    except duckdb.IOException as exc:
        if UNWRITTEN not in str(exc):
            raise
        return False
    return True


def _detach(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    connection.execute("USE memory")
    try:
        is_whole = detach(connection, name)
    except duckdb.IOException:
        _forsake_instance()
        raise
    if not is_whole:
        _forsake_instance()


def _instance() -> duckdb.DuckDBPyConnection:
    known = _INSTANCES.get(os.getpid())
    if known is not None:
        return known
    instance = duckdb.connect()
    # Little is sorted here, and the working folder, which DuckDB would take, is no place for files.
    instance.execute("SET temp_directory = ''")
    return _INSTANCES.setdefault(os.getpid(), instance)


def _forsake_instance() -> None:
    """After an error: a file may still be attached to it, or it may refuse all further work."""
    _INSTANCES.pop(os.getpid(), None)


@contextlib.contextmanager
def transaction(db: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commits what is done within; rolls it back if anything is raised."""
    try:
        db.begin()
        yield
        db.commit()
    except BaseException:
        with contextlib.suppress(duckdb.Error):
            db.rollback()
        raise


def one(db: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Any] = ()) -> Any:
    """The single value of a query. Fetches all of it: DuckDB 2 refuses other work beside a half-read result."""
    return db.execute(sql, list(values)).fetchall()[0][0]


def one_integer(db: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Any] = ()) -> int:
    """The single value of a query that counts or numbers."""
    return int(one(db, sql, values))


def is_damage(exc: BaseException | None) -> bool:
    """Whether an error of DuckDB says that the file itself is not as it was written."""
    if any(sign in str(exc).lower() for sign in NEWER):
        return False
    broken = isinstance(exc, duckdb.FatalException | duckdb.InternalException | duckdb.SerializationException)
    return broken or (isinstance(exc, duckdb.Error) and any(sign in str(exc) for sign in DAMAGED))


def first_line(said: BaseException | str | None) -> str:
    """What an error of DuckDB says, without its last full stop."""
    return str(said).splitlines()[0].rstrip(".! ")


@contextlib.contextmanager
def duckdb_errors(path: Path, job: str | None = None) -> Iterator[None]:
    """Turns DuckDB's errors into sentences that say what to do. job: whose cache the file is, if it is one."""
    try:
        yield
    except (duckdb.Error, RuntimeError) as exc:
        signals.heed(exc)
        if not isinstance(exc, duckdb.Error):
            raise
        text = first_line(exc)
        if "Permission denied" in text:
            raise StoreError(f"Permission denied for {path}. {FIX_PERMISSIONS}") from exc
        if any(sign in str(exc) for sign in FULL):
            raise StoreError(
                f"{path} cannot be written: the disk is full. Free space, then run again; nothing committed is lost."
            ) from exc
        if UNWRITTEN in text:
            raise StoreError(f"{path} cannot be written: {first_line(str(exc).split(CAUSE)[-1])}") from exc
        if any(sign in text.lower() for sign in NEWER):
            raise StoreError(
                f"{path} was written by a newer DuckDB: install the newer batchinfer; the cache is left as it is."
            ) from exc
        fix = f"batchinfer doctor {job} --deep says what is damaged, batchinfer repair {job} makes a new cache of what is left."
        raise StoreError(f"{path} cannot be used: {text}", fix=fix if job and is_damage(exc) else None) from exc


@contextlib.contextmanager
def scratch_database(folder: Path, *, reuse: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database for intermediate tables, of bounded memory, that nobody else uses.

    Raises StoreError when it cannot be written, and UsageError where BATCHINFER_MEMORY is no amount of memory.

    reuse: whether the next one uses its instance again, which spares most of the time of a small job's command; not before
    something that wants much memory, since an instance gives what it had back when it is closed.
    """
    with duckdb_errors(folder):
        db = _scratch_instance(folder)
        name = f"scratch_{next(_NUMBERS)}"
        try:
            # Not a file: that would log, compress and write even what fits into memory.
            db.execute(f"ATTACH ':memory:' AS {name}")
            db.execute(f"USE {name}")
            yield db
            _clear(db, name)
        except BaseException:
            db.close()
            raise
        if not reuse:
            db.close()
            return
        _IDLE.setdefault(os.getpid(), []).append(db)


def _scratch_instance(folder: Path) -> duckdb.DuckDBPyConnection:
    idle = _IDLE.get(os.getpid(), [])
    while True:
        db = idle.pop() if idle else duckdb.connect()
        try:
            db.execute(f"SET temp_directory = {literal(found_by_duckdb(folder / 'spill'))}")
        except duckdb.Error:  # it has spilled into another one, and cannot leave that
            db.close()
            continue
        db.execute(f"SET memory_limit = '{table_memory()}B'")
        db.execute(f"SET threads = {len(os.sched_getaffinity(0))}")
        db.execute("SET preserve_insertion_order = true")
        return db


def _clear(db: duckdb.DuckDBPyConnection, name: str) -> None:
    """Leaves nothing of one use in the instance but functions, which are the same for all."""
    for (view,) in db.execute("SELECT view_name FROM duckdb_views() WHERE temporary AND NOT internal").fetchall():
        db.unregister(view)
    db.execute("USE memory")
    db.execute(f"DETACH {name}")


def add_text_function(
    db: duckdb.DuckDBPyConnection, name: str, function: Callable[[pa.ChunkedArray], pa.Array]
) -> None:
    """Lets SQL call a function from texts to texts. Its name must say all that it does: later databases find it there."""
    try:
        db.create_function(name, function, ["VARCHAR"], "VARCHAR", type="arrow", null_handling="special")  # type: ignore[call-overload]
    except (duckdb.NotImplementedException, duckdb.CatalogException) as exc:
        if "already" not in str(exc):  # asking first would list all functions, which takes longer than small work
            raise


@contextlib.contextmanager
def record_batches(db: duckdb.DuckDBPyConnection, sql: str, rows_at_once: int) -> Iterator[pa.RecordBatchReader]:
    """What a query gives, so many rows and about `batch_bytes` at a time. The connection is free for other work meanwhile."""
    name = one(db, "SELECT current_database()")
    reading = db.cursor()
    try:
        reading.execute(f"USE {quoted(name)}")
        reader = reading.sql(sql).to_arrow_reader(min(rows_at_once, VECTOR))
        yield pa.RecordBatchReader.from_batches(reader.schema, gathered(reader, rows_at_once))
    finally:
        reading.close()
