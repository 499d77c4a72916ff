"""A list as a query of DuckDB over files below the allowed folders, and over nothing else: `input.sql`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.core import signals
from batchinfer.core.database import TEXT_ROWS, first_line
from batchinfer.core.duckdb_paths import found_by_duckdb
from batchinfer.core.memory import table_memory
from batchinfer.core.parquet_batches import gathered
from batchinfer.core.sql import literal
from batchinfer.errors import InputError
from batchinfer.job.reader import ROOTS_VARIABLE, Job

FOLDER = "{folder}"  # stands for the job's folder
VECTOR = 2048  # rows that are fetched at once, and then gathered
SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # what Python calls rows is no table
}


def query_as_parquet(job: Job, target: Path, scratch: Path, *, rows: bool) -> None:
    """Writes a Parquet file with what the job's query gives. Raises InputError.

    scratch: a folder to spill to. rows: False for those who only look at the columns.
    """
    sql = _selection(job.spec.input.sql or "")
    asked = sql.replace(FOLDER, str(job.folder).replace("'", "''"))
    with _engine(job, scratch) as db, _in_our_words(job):
        reader = db.sql(f"FROM ({asked}\n){'' if rows else ' LIMIT 0'}").to_arrow_reader(VECTOR)
        schema = pa.schema([field.with_nullable(nullable=True) for field in reader.schema])
        with pq.ParquetWriter(target, schema) as writer:
            for batch in gathered(reader, TEXT_ROWS):
                writer.write_batch(batch.cast(schema))


def _selection(sql: str) -> str:
    """The query without its end. Raises InputError for anything but one query."""
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as exc:
        raise _fault(f"it cannot be read: {first_line(exc)}") from exc
    kinds = [statement.type.name for statement in statements]
    if kinds != ["SELECT"]:
        what = "nothing" if not kinds else ", ".join(kind.replace("_", " ") for kind in kinds)
        raise _fault(f"it must be one SELECT, which writes nothing, and is {what}")
    return statements[0].query.strip().rstrip(";")


@contextlib.contextmanager
def _engine(job: Job, scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of its own, which reads files below the allowed folders, and whose settings no query can change."""
    allowed = (job.folder, *job.roots)
    folders = [f"{folder}/" for place in allowed for folder in (place, place.resolve())]
    with contextlib.closing(duckdb.connect(config=SETTINGS)) as db:
        db.execute(f"SET temp_directory = {literal(found_by_duckdb(scratch / 'query'))}")
        db.execute(f"SET memory_limit = '{table_memory()}B'")
        db.execute(f"SET threads = {len(os.sched_getaffinity(0))}")
        db.execute(f"SET allowed_directories = [{', '.join(map(literal, dict.fromkeys(folders)))}]")
        db.execute("SET enable_external_access = false")
        db.execute("SET lock_configuration = true")
        yield db


@contextlib.contextmanager
def _in_our_words(job: Job) -> Iterator[None]:
    try:
        yield
    except duckdb.PermissionException as exc:
        raise _fault(
            f"{first_line(exc).partition(' - ')[0]}: it may read files below {job.folder}, which {FOLDER} stands for at the "
            f"beginning of a path, and below the folders in ${ROOTS_VARIABLE}, by their whole paths"
        ) from exc
    except (duckdb.Error, RuntimeError) as exc:
        signals.heed(exc)
        if not isinstance(exc, duckdb.Error):
            raise
        raise _fault(first_line(exc)) from exc
    except pa.ArrowInvalid as exc:
        raise _fault(str(exc)) from exc


def _fault(said: str) -> InputError:
    return InputError(f"The query does not work: {said}.", field=("input", "sql"))
