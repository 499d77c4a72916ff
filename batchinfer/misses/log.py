"""What clients asked for and did not find, as Parquet beside the job: merged from a server's counts, read by a run.

One file for each day and server. They stay until somebody removes them: otherwise the next version would lose the
entries that it has because they were once missed.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.core.columns import Column
from batchinfer.core.database import LIST_ROWS
from batchinfer.core.files import DAMAGE, UNREAD, os_errors, write_atomically
from batchinfer.core.home import JobData
from batchinfer.core.locks import lock_in_turn
from batchinfer.errors import StoreError, UsageError
from batchinfer.misses.counter import Miss, server_name
from batchinfer.versions.query import QueryReader

MOST_QUERIES = 100_000  # in one file; those asked for most often stay
MERGED = b"batchinfer.merged"
SCHEMA = pa.schema(
    {"query": pa.string(), "count": pa.int64(), "first_seen": pa.timestamp("us"), "last_seen": pa.timestamp("us")}
)


def merge(data: JobData, day: date, server: str, counted: Mapping[str, Sequence[Miss]]) -> None:
    """Adds counts to the day's file of a server. Raises StoreError.

    counted: by the name of the file that they were spooled in, all that are still there. The Parquet file remembers the
    names, so that a file which is merged but not yet removed is not counted again.
    """
    if not data.folder.is_dir():
        raise StoreError(f"{data.folder} is not there: mount or make the data folder again.")
    path = data.misses / f"{day.isoformat()}-{server_name(server)}.parquet"
    with _locked(data):
        before, merged = _read(path) if path.exists() else (SCHEMA.empty_table(), set())
        new = [miss for name, misses in counted.items() if name not in merged for miss in misses]
        if new:
            _write(path, _summed([before, _table(new)]), sorted(counted))


def erase(data: JobData, lookup_hash: bytes, key: Sequence[Column], normalize: Sequence[str]) -> int:
    """Removes a query from all files; returns in how many it was. Raises StoreError.

    lookup_hash: of its lookup key.
    key: the columns of the lookup key.
    normalize: the steps that make spellings equal.
    """
    if not data.misses.is_dir():
        return 0
    reader, count = QueryReader("", key, normalize), 0
    with _locked(data):
        for path in files(data):
            table, merged = _read(path)
            found = [values_of(query, reader) for query in table["query"].to_pylist()]
            keep = [not values or reader.lookup_hash(values) != lookup_hash for values in found]
            if not all(keep):
                _write(path, table.filter(pa.array(keep, pa.bool_())), sorted(merged))
                count += 1
    return count


def files(data: JobData) -> list[Path]:
    """The files of a job, oldest first. Raises StoreError if the folder is there and cannot be read."""
    try:
        return sorted(path for path in data.misses.iterdir() if path.suffix == ".parquet")
    except FileNotFoundError:  # nothing was missed yet
        return []
    except OSError as exc:
        raise StoreError(f"{data.misses} cannot be read: {exc.strerror}. Fix that, then run again.") from exc


def batches(path: Path) -> Iterator[pa.Table]:
    """The rows of one file, as SCHEMA has them. Raises StoreError for a damaged one."""
    with _readable(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(LIST_ROWS, columns=SCHEMA.names):
            table = pa.Table.from_batches([batch]).replace_schema_metadata().cast(SCHEMA)
            table.validate(full=True)
            yield table


def values_of(query: str, reader: QueryReader) -> list[Any] | None:
    """The values of a query in the order of the key; None if it is not a query for this key."""
    try:
        found = json.loads(query)
        values = reader.from_values(found) if isinstance(found, dict) else ()
        return [_naive(value) if isinstance(value, datetime) else value for value in values]
    except UsageError:
        return None
    except DAMAGE:  # not even JSON
        return None


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _summed(tables: Sequence[pa.Table]) -> pa.Table:
    """One row for each query, in the order in which they were first seen."""
    grouped = pa.concat_tables(tables).group_by("query", use_threads=False)
    summed = grouped.aggregate([("count", "sum"), ("first_seen", "min"), ("last_seen", "max")])
    table = summed.rename_columns({"count_sum": "count", "first_seen_min": "first_seen", "last_seen_max": "last_seen"})
    if table.num_rows > MOST_QUERIES:
        by_use = table.sort_by([("count", "descending"), ("last_seen", "descending")])
        table = by_use.slice(0, MOST_QUERIES)
    return table.select(SCHEMA.names).sort_by([("first_seen", "ascending"), ("query", "ascending")])


def _table(misses: Sequence[Miss]) -> pa.Table:
    return pa.table(
        {
            "query": [miss.query for miss in misses],
            "count": [miss.count for miss in misses],
            "first_seen": [_naive(miss.first_seen) for miss in misses],
            "last_seen": [_naive(miss.last_seen) for miss in misses],
        },
        SCHEMA,
    )


def _write(path: Path, table: pa.Table, merged: Sequence[str]) -> None:
    """Replaces a file. The drafts of a process that was killed are removed: this one holds the lock."""
    content = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({MERGED: json.dumps(merged)}), content, compression="zstd")
    with os_errors(path):
        for draft in path.parent.glob(f".{path.name}.*"):
            draft.unlink()
    write_atomically(path, content.getvalue())


def _read(path: Path) -> tuple[pa.Table, set[str]]:
    """A whole file, and the names of the spooled files that were merged into it."""
    with _readable(path), pq.ParquetFile(path) as file:
        merged = json.loads((file.schema_arrow.metadata or {}).get(MERGED, b"[]"))
        table = file.read(SCHEMA.names).replace_schema_metadata().cast(SCHEMA)
        table.validate(full=True)  # nothing else looks whether text is UTF-8
        return table, set(merged)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except pa.ArrowException as exc:
        raise _unreadable(path, exc) from exc
    except UNREAD as exc:
        raise _unreadable(path, exc) from exc


def _unreadable(path: Path, exc: Exception) -> StoreError:
    return StoreError(
        f"{path} is damaged, cannot be read, or holds no misses: {next(iter(str(exc).splitlines()), repr(exc))} "
        "Move it away (what was asked for on that day is lost then), then run again."
    )


@contextlib.contextmanager
def _locked(data: JobData) -> Iterator[None]:
    """Two servers, or a server and `forget`, take turns."""
    with os_errors(data.misses):
        data.misses.mkdir(exist_ok=True)
    with lock_in_turn(data.misses / ".lock", "batchinfer misses"):
        yield
