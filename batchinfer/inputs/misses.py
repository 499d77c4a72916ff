"""Misses, queries that clients asked for and did not find, as rows of the list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchinfer.core.columns import Kind
from batchinfer.core.home import JobData
from batchinfer.inputs.convert import ARROW_TYPES
from batchinfer.inputs.parquet import ROW, ListSource
from batchinfer.misses import log
from batchinfer.versions.query import QueryReader

COUNT = "\x1fcount"
MOST_ASKED = 200_000  # different queries that are told apart


def rows(data: JobData, source: ListSource) -> Iterator[pa.Table]:
    """All misses of a job as rows of its list, checked as the list is, with their counts in the column COUNT.

    Those that would be bad rows are left out. A query may come several times: in several files, or spelled differently.
    ROW numbers them, the earliest first. Raises StoreError for a damaged file.
    """
    number = 0
    for path in log.files(data):
        for batch in log.batches(path):
            good = source.check(_as_listed(batch["query"].to_pylist(), source), number, path).good
            counts = batch["count"].take(pc.subtract(good[ROW], number + 1))
            yield good.append_column(COUNT, counts)
            number += batch.num_rows


def asked_since(data: JobData, source: ListSource, since: datetime) -> dict[bytes, datetime]:
    """The lookup hashes of what clients asked for and did not find, and when each was asked first. Raises StoreError.

    since: in UTC, without a zone; what was asked for the last time before that is left out. Of very many, the newest.
    """
    reader, found = QueryReader("", source.key, source.normalize), dict[bytes, datetime]()
    for path in reversed(log.files(data)):
        for batch in log.batches(path):
            for query, first, last in zip(
                *(batch[name].to_pylist() for name in ("query", "first_seen", "last_seen")), strict=True
            ):
                if last >= since and (values := log.values_of(query, reader)):
                    lookup_hash = reader.lookup_hash(values)
                    found[lookup_hash] = min(first, found.get(lookup_hash, first))
        if len(found) >= MOST_ASKED:
            break
    return found


def _as_listed(queries: Sequence[str], source: ListSource) -> pa.RecordBatch:
    """The queries as columns like those of the list; all null where a query does not fit today's lookup key."""
    reader, nothing = QueryReader("", source.key, source.normalize), [None] * len(source.key)
    found = [log.values_of(query, reader) or nothing for query in queries]
    columns = {
        column.name: _column([values[number] for values in found], column.kind)
        for number, column in enumerate(source.key)
    }
    beyond = {
        name: pa.nulls(len(found), ARROW_TYPES[kind]) for name, kind in source.kinds.items() if name not in columns
    }
    return pa.RecordBatch.from_pydict(columns | beyond)


def _column(values: list[Any], kind: Kind) -> pa.Array:
    if kind == "integer":  # as text, since there may be some that fit only with a sign and some only without
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    return pa.array(values, ARROW_TYPES[kind])
