"""A list as a query of DuckDB over files below the allowed folders, and over nothing else: `input.sql`."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.core.database import TEXT_ROWS, first_line
from batchinfer.core.duckdb_paths import found_by_duckdb
from batchinfer.core.memory import table_memory
from batchinfer.core.parquet_batches import gathered
from batchinfer.core.sql import literal, quoted
from batchinfer.errors import InputError
from batchinfer.job.reader import ROOTS_VARIABLE, Job

FOLDER = "{folder}"  # stands for the job's folder
VECTOR = 2048  # rows that are fetched at once, and then gathered
LISTEN_SECONDS = 0.2
_END = re.compile(r";\s*(--[^\n]*\s*)*$")  # of a query that is to be part of another
KINDS = {
    "boolean", "tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint", "float", "double",
    "decimal", "varchar", "blob", "uuid", "enum", "date", "timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns",
    "timestamp with time zone", "list", "array", "struct", "map",
}  # fmt: skip
SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # what Python calls rows is no table
}


def query_as_parquet(job: Job, target: Path, scratch: Path, *, rows: bool) -> None:
    """Writes a Parquet file with what the job's query gives. Raises InputError.

    scratch: an empty folder. rows: False for those who only look at the columns.
    """
    folder = scratch / "folder"  # whose path has no sign that stands for others, and no part that names a column
    folder.symlink_to(job.folder)
    sql = _selection(job.spec.input.sql or "").replace(FOLDER, str(folder))
    with _engine(job, folder) as db, _in_our_words(job, folder), ThreadPoolExecutor(1) as threads:
        work = threads.submit(_write, db, sql, target, rows=rows)
        try:
            while not work.done():  # in slices, since DuckDB would not hear of a signal
                wait([work], LISTEN_SECONDS)
        except BaseException:
            while not work.done():  # again and again: one that comes before the query has begun is lost
                db.interrupt()
                wait([work], LISTEN_SECONDS)
            raise
        work.result()


def _write(db: duckdb.DuckDBPyConnection, sql: str, target: Path, *, rows: bool) -> None:
    found = db.sql(sql)
    others = [name for name, kind in zip(found.columns, found.types, strict=True) if kind.id not in KINDS]
    if others:  # as texts: Arrow has no such type, or none that keeps all of its values
        casts = ", ".join(f"CAST({quoted(name)} AS VARCHAR) AS {quoted(name)}" for name in others)
        found = found.project(f"* REPLACE ({casts})")
    reader = (found if rows else found.limit(0)).to_arrow_reader(VECTOR)
    schema = pa.schema([field.with_nullable(nullable=True) for field in reader.schema])
    with pq.ParquetWriter(target, schema) as writer:
        for batch in gathered(reader, TEXT_ROWS):
            writer.write_batch(batch.cast(schema))


def _selection(sql: str) -> str:
    """The query, if it is one. Raises InputError for anything else."""
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as exc:
        raise _fault(f"it cannot be read: {first_line(exc)}") from exc
    kinds = [statement.type.name for statement in statements]
    if kinds != ["SELECT"]:
        what = "nothing" if not kinds else ", ".join(kind.replace("_", " ") for kind in kinds)
        raise _fault(f"it must be one SELECT, which writes nothing, and is {what}")
    return _END.sub("", statements[0].query)


@contextlib.contextmanager
def _engine(job: Job, folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of its own, which reads files below the allowed folders, and whose settings no query can change."""
    allowed = (job.folder, *job.roots)
    folders = [f"{folder}/", *(f"{path}/" for place in allowed for path in (place, place.resolve()))]
    with contextlib.closing(duckdb.connect(config=SETTINGS)) as db:
        db.execute(f"SET temp_directory = {literal(found_by_duckdb(folder.with_name('spill')))}")
        db.execute(f"SET memory_limit = '{table_memory()}B'")
        db.execute(f"SET threads = {len(os.sched_getaffinity(0))}")
        db.execute(f"SET allowed_directories = [{', '.join(map(literal, dict.fromkeys(folders)))}]")
        db.execute("SET enable_external_access = false")
        db.execute("SET lock_configuration = true")
        yield db


@contextlib.contextmanager
def _in_our_words(job: Job, folder: Path) -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as exc:  # Arrow's reader passes DuckDB's errors on as its own
        said = first_line(exc).replace(str(folder), FOLDER)
        if "Permission Error" not in said:
            raise _fault(said) from exc
        said = said[said.index("Permission Error") :].partition(" - ")[0]
        raise _fault(
            f"{said}: it may read files below {job.folder}, which {FOLDER} stands for at the beginning of a path, and below the "
            f"folders in ${ROOTS_VARIABLE}, by their whole paths"
        ) from exc


def _fault(said: str) -> InputError:
    return InputError(f"The query does not work: {said}.", field=("input", "sql"))
