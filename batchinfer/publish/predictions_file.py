"""predictions.parquet of a version or candidate, written and read in bounded memory however long its texts are.

| table    | columns                                                                       |
| -------- | ----------------------------------------------------------------------------- |
| narrowed | those of a query whose rows are long, with tokens of whole cells; others name |
|          | theirs themselves                                                             |
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.core.columns import Column
from batchinfer.core.database import COPY_OPTIONS, ROW_GROUP, one, record_batches
from batchinfer.core.duckdb_paths import parquet_rows
from batchinfer.core.files import os_errors
from batchinfer.core.keys import short
from batchinfer.core.long_json import shortened_json
from batchinfer.core.long_rows import LONG_TEXTS, has_long_texts, large_group
from batchinfer.core.long_texts import LONG, LongTexts
from batchinfer.core.parquet_batches import row_batches
from batchinfer.core.sql import listed, literal, quoted
from batchinfer.versions.layout import PREDICTIONS, VALUE_COLUMNS, version_column
from batchinfer.versions.manifest import Manifest


def write_predictions(db: duckdb.DuckDBPyConnection, rows: str, order: str, target: Path, texts: LongTexts) -> None:
    """Writes what a query gives, sorted. texts: those that it gives tokens of. Raises StoreError."""
    sql = f"{rows} ORDER BY {order}"
    if are_large(db, rows, "prediction", "raw_text"):
        sql = f"FROM {narrow(db, rows, texts)} ORDER BY {order}"
    elif not texts.any:
        marked = COPY_OPTIONS.replace(")", f", KV_METADATA {{'{LONG_TEXTS}': '0'}})")
        db.execute(f"COPY ({sql}) TO {literal(str(target))} {marked}")
        return
    with record_batches(db, sql, ROW_GROUP) as reader:
        write_batches(texts.all_whole(reader), reader.schema, target)
    db.execute("DROP TABLE IF EXISTS narrowed")


def are_large(db: duckdb.DuckDBPyConnection, rows: str, *columns: str) -> bool:
    """Whether what a query gives has so much text in these columns that it has to be narrowed."""
    size = " + ".join(f"coalesce(strlen({quoted(name)}), 0)" for name in columns)
    return bool(one(db, f"SELECT coalesce(avg({size}), 0) FROM ({rows})") * ROW_GROUP > large_group())


def narrow(
    db: duckdb.DuckDBPyConnection, rows: str, texts: LongTexts, table: str = "narrowed", long: int = LONG
) -> str:
    """Makes a table of what a query gives, with tokens also in place of long JSON that has short strings.

    Many such rows could not be sorted or joined. SQL finds nothing in them then. Returns the table's name.
    long: bytes of a text beyond which a token stands for it.
    """
    db.execute(f"CREATE OR REPLACE TABLE {table} AS {rows} LIMIT 0")
    with record_batches(db, rows, ROW_GROUP) as reader:
        for batch in texts.all_whole(reader):
            columns = [texts.shortened(column, long) for column in batch.columns]
            db.register("batch", pa.table(columns, names=batch.schema.names))
            db.execute(f"INSERT INTO {table} FROM batch")
            db.unregister("batch")
    return table


def write_batches(batches: Iterator[pa.RecordBatch], schema: pa.Schema, target: Path) -> None:
    """Writes rows that may be long, a row group for each batch. Raises StoreError."""
    schema = schema.with_metadata({LONG_TEXTS: "1"})
    with os_errors(target), pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_table(pa.Table.from_batches([batch]).cast(schema))


def version_rows(db: duckdb.DuckDBPyConnection, texts: LongTexts, folder: Path, key: Sequence[Column]) -> str:
    """SQL for the entries of a version or a candidate, named as those of a list. key: its own.

    Those of a file with long texts are in a table then, with tokens. Raises what DuckDB or Arrow raises.
    """
    path = folder / PREDICTIONS
    names = [f"{version_column(column.name)} AS {listed(column.name)}" for column in key]
    select = f"SELECT {', '.join(['lookup AS lookup_hash', *names, VALUE_COLUMNS])} FROM"
    with contextlib.suppress(OSError, pa.ArrowException):  # DuckDB says the same of it, and callers know how
        if has_long_texts(path):
            return f"FROM {loaded(db, texts, path, select, is_json=Manifest.read(folder).is_json)}"
    return f"{select} {parquet_rows(path)}"


def loaded(db: duckdb.DuckDBPyConnection, texts: LongTexts, path: Path, select: str, *, is_json: bool) -> str:
    """A table with the rows of a file, and with tokens in place of long texts.

    select: SQL for the columns, up to its FROM. is_json: whether predictions are. Raises what DuckDB or Arrow raises.
    """
    table = f"version_{short(str(path).encode()).hex()}"
    if db.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [table]).fetchall():
        return table
    schema = pq.read_schema(path)
    empty = pa.RecordBatch.from_pylist([], schema)
    for number, batch in enumerate(itertools.chain([empty], row_batches(path, schema.names, ROW_GROUP))):
        db.register("batch", _shortened(batch, texts, is_json=is_json))
        db.execute(f"{f'INSERT INTO {table}' if number else f'CREATE TABLE {table} AS'} {select} batch")
        db.unregister("batch")
    return table


def _shortened(batch: pa.RecordBatch, texts: LongTexts, *, is_json: bool) -> pa.Table:
    """Rows of a version with tokens in place of long texts, as the cache has them."""
    columns = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name == "prediction" and is_json:
            column = pa.array([shortened_json(text, texts.keep) for text in column.to_pylist()], pa.string())  # noqa: PLW2901
        columns[name] = texts.shortened(column) if not (name == "prediction" and is_json) else column
    return pa.table(columns)
