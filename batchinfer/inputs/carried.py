"""Other columns of the list that a chained job's upstream was made of: `input.carry`.

| table        | columns                               | what it holds                                         |
| ------------ | ------------------------------------- | ----------------------------------------------------- |
| carried_rows | lookup, row, and each carried column  | all rows of that list                                 |
| carried      | lookup, and each carried column       | of rows that share a lookup key, the first one's      |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from batchinfer.core import keys
from batchinfer.core.long_texts import LongTexts
from batchinfer.core.sql import quoted
from batchinfer.errors import InputError
from batchinfer.inputs.list_file import ListFile
from batchinfer.inputs.parquet import ROW, ListSource
from batchinfer.job.reader import Job
from batchinfer.versions.manifest import Manifest

JSON_MARK = b"batchinfer.json"  # in the metadata of a column of a list that is made of another job's


@dataclass(frozen=True, slots=True)
class UpstreamList:
    """The list of the job before.

    job: its job file.
    files: its list as it is now.
    """

    job: Job
    files: Sequence[ListFile]


def load_carried(
    db: duckdb.DuckDBPyConnection,
    texts: LongTexts,
    upstream: UpstreamList,
    served: Manifest,
    names: Sequence[str],
    *,
    rows: bool,
) -> frozenset[str]:
    """Makes the table `carried`, with tokens of long texts; returns the nested ones of its columns, which are JSON there.

    texts: take those.     served: the version that is joined with it. rows: False for its columns alone.
    Raises InputError where the list lacks a column, or is keyed otherwise than the version.
    """
    spec = upstream.job.spec.input
    source = ListSource(upstream.files, spec, names)
    if list(served.key) != source.key or list(served.normalize) != source.normalize:
        raise InputError(
            f"The job file of {upstream.job.name} has another input.key, or other kinds of key columns, than its served version, so "
            "that columns of its list cannot be carried",
            fix=f"batchinfer publish {upstream.job.name}",
        )
    own = ", ".join(carried_column(name) for name in names)
    hashed = keys.lookup_hash_sql(source.key, source.normalize)
    for number, batch in enumerate(source.batches()):
        good = batch.good
        for name in names:
            good = good.append_column(_named(name), texts.shortened(good[name]))
        db.register("batch", good)
        begin = "INSERT INTO carried_rows" if number else "CREATE TABLE carried_rows AS"
        db.execute(
            f"{begin} SELECT {hashed} AS lookup, {quoted(ROW)} AS row, {own} FROM batch{'' if rows else ' LIMIT 0'}"
        )
        db.unregister("batch")
        if not rows:
            break
    firsts = "SELECT min(row) FROM carried_rows GROUP BY lookup"
    db.execute(f"CREATE TABLE carried AS SELECT * EXCLUDE (row) FROM carried_rows WHERE row IN ({firsts})")
    db.execute("DROP TABLE carried_rows")
    return frozenset(name for name in names if source.kinds[name] == "json")


def marked_json(field: pa.Field) -> pa.Field:
    """A column of texts, marked as one of JSON."""
    return field.with_metadata({JSON_MARK: b"1"})


def holds_json(field: pa.Field) -> bool:
    """Whether a column of texts is marked so."""
    return JSON_MARK in (field.metadata or {})


def with_carried(rows: str) -> str:
    """SQL for rows of the version beside what is carried."""
    return f"{rows} LEFT JOIN carried USING (lookup)"


def carried_column(name: str) -> str:
    """SQL for a carried column's name in `carried`, which no column of a version has."""
    return quoted(_named(name))


def _named(name: str) -> str:
    return f"{name}\x1fcarried"
