"""Rows of a Parquet file that this program wrote, read in bounded memory however long its texts are."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.core.database import one, one_integer, query_engine, record_batches
from batchinfer.core.duckdb_paths import parquet_name, parquet_rows
from batchinfer.core.files import check_plain
from batchinfer.core.json_parts import JsonPath
from batchinfer.core.long_texts import LONG, MOST_TEXT, LongTexts
from batchinfer.core.memory import table_memory
from batchinfer.core.parquet_batches import cut, row_batches
from batchinfer.core.set_aside import SetAside
from batchinfer.core.sql import literal, quoted

LONG_TEXTS = (
    "batchinfer.long_texts"  # in the file's metadata: 1 where it may hold some, 0 where not; older programs did not say
)

WHOLE = "((PLAIN|RLE|DELTA_LENGTH_BYTE_ARRAY)(, )?)+"  # encodings that have each text as often as it occurs
SEEN = 128  # such a part of the memory may rows take that a query sees at once, with their long texts set aside
LARGE_GROUP = 128 << 20  # bytes of a row group's texts, which DuckDB holds in memory, several times


def large_group() -> int:
    """Bytes of texts in a row group from which on its rows are read with care."""
    return min(LARGE_GROUP, table_memory() // 6)


def has_long_texts(path: Path) -> bool:
    """Whether its rows have to be read with care. Raises what Arrow or DuckDB raises, and StoreError for what is no file."""
    check_plain(path)
    facts, most = pq.read_metadata(path), large_group()
    if any(facts.row_group(number).total_byte_size > most for number in range(facts.num_row_groups)):
        return True
    said = (facts.metadata or {}).get(LONG_TEXTS.encode())
    if said is not None:
        return bool(said == b"1")
    texts = [field.name for field in pq.read_schema(path) if pa.types.is_string(field.type)]
    longest = ", ".join(f"coalesce(max(strlen({quoted(name)})), 0)" for name in texts)
    with query_engine() as db:
        return bool(one(db, f"SELECT greatest(0, {longest}) FROM {parquet_rows(path)}") > LONG)


def most_text(db: duckdb.DuckDBPyConnection, path: Path, column: str) -> int:
    """Bytes that the texts of a column take at most, by what the file says of itself. Raises what DuckDB raises.

    Where it does not have each text as often as it occurs, every row might have the longest.
    """
    times = f"CASE WHEN regexp_full_match(encodings, '{WHOLE}') THEN 1 ELSE row_group_num_rows END"
    facts = f"parquet_metadata({parquet_name(path)}) WHERE path_in_schema = {literal(column)}"
    return one_integer(db, f"SELECT coalesce(sum(total_uncompressed_size * {times}), 0) FROM {facts}")


def read_batches(
    db: duckdb.DuckDBPyConnection,
    path: Path,
    select: Callable[[str], str],
    rows_at_once: int,
    shortened: Callable[[pa.RecordBatch], pa.RecordBatch] | None = None,
) -> Iterator[pa.RecordBatch]:
    """What a query gives of the rows of a file, some at a time. select: makes the query, which looks at each row alone.

    shortened: what it is to see of rows that may have long texts, if not all.
    """
    if not has_long_texts(path):
        with record_batches(db, select(parquet_rows(path)), rows_at_once) as reader:
            yield from reader
        return
    name = quoted(one(db, "SELECT current_database()"))
    most = table_memory() // SEEN
    batches = row_batches(path, pq.read_schema(path).names, rows_at_once)
    # DuckDB makes twenty copies of a text on its way through JSON: two of the longest are too many.
    for batch in itertools.chain.from_iterable(cut(batch, MOST_TEXT) for batch in batches):
        for part in [batch] if shortened is None else cut(shortened(batch), most):
            reading = db.cursor()
            try:
                reading.execute(f"USE {name}")
                reading.register("batch", part)
                yield from reading.sql(select("batch")).to_arrow_reader(rows_at_once)
            finally:
                reading.close()


def read_parts(
    db: duckdb.DuckDBPyConnection,
    path: Path,
    select: Callable[[str], str],
    rows_at_once: int,
    lists: Mapping[str, Collection[JsonPath]],
    most: int | None = None,
    texts: LongTexts | None = None,
) -> Iterator[pa.RecordBatch]:
    """The same, for a query that takes plain values, and items of these lists, out of JSON.

    It sees a row with long JSON as several ones, each with a part of the lists.

    lists: by columns of JSON, the places of lists in them. most: rows of those that it is to see.
    texts: those that what the query joins has tokens of.
    """
    aside = SetAside(None if texts is None else texts.read)
    shortened = partial(aside.in_parts, lists=lists, most=most)
    for batch in read_batches(db, path, select, rows_at_once, shortened):
        yield from aside.put_back(batch)
