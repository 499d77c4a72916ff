"""Chained jobs: the served version of one job, exploded if wished, as the query list of the next."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from batchinfer.core.database import scratch_database
from batchinfer.core.files import os_errors
from batchinfer.core.home import JobData, job_names
from batchinfer.core.sql import json_path, literal, quoted
from batchinfer.errors import BatchinferError, InputError, NotFound, SpecError
from batchinfer.inputs.parquet import BATCH_ROWS
from batchinfer.job import reader
from batchinfer.job.reader import Job
from batchinfer.job.spec import InputSpec
from batchinfer.versions import folders, pointers
from batchinfer.versions.layout import PREDICTIONS, version_column
from batchinfer.versions.snapshot import Snapshot

PREDICTION = "prediction"
SAMPLE = 100  # predictions that are looked at to say what they hold


@dataclass(frozen=True, slots=True)
class Upstream:
    """The version that a chained job's list was made of."""

    job: str
    version: int

    def __str__(self) -> str:
        return f"{self.job}, version {self.version}"


def write_list(job: Job, data: JobData, scratch: Path, *, rows: bool = True) -> tuple[Path, Upstream]:
    """Writes the list of a chained job as Parquet below `scratch`, from the version that its upstream serves.

    rows: False for those who only look at the columns; such a list is not whole. Raises InputError, SpecError or StoreError.
    """
    _check_no_circle(job, data)
    with _served(job, data) as (version, upstream):
        target = scratch / f"{upstream.job}-{upstream.version}.parquet"
        with scratch_database(scratch) as db:
            _write(db, version, job, target, rows=rows)
    return target, upstream


def _check_no_circle(job: Job, data: JobData) -> None:
    """Raises SpecError for a chain that closes on itself."""
    names, link = [job.name], job.spec.input.job
    while link is not None and link not in names:
        names.append(link)
        link = _upstream_of(JobData(data.root, link))
    if link is not None:
        chain = " → ".join([*names, link])
        raise SpecError(
            str(job.path), [f"input.job: the chain closes on itself ({chain}): let one of them read a file instead."]
        )


def _upstream_of(data: JobData) -> str | None:
    """The job from which another one takes its list: by its job file, or else by its served version."""
    with contextlib.suppress(BatchinferError):
        if bound := data.record().get("job_file"):
            return reader.load(str(bound), {}).spec.input.job
    with contextlib.suppress(BatchinferError):
        with pointers.open_served(data) as version:
            said = version.manifest.spec.get("input", {}).get("job")
        return said if isinstance(said, str) else None
    return None


@contextlib.contextmanager
def _served(job: Job, data: JobData) -> Iterator[tuple[Snapshot, Upstream]]:
    """The version of the upstream job that is served, open, so that it is not removed. Raises InputError or StoreError."""
    name = str(job.spec.input.job)
    source = JobData(data.root, name)
    if not source.folder.is_dir():
        there = job_names(data.root) if data.root.is_dir() else []
        published = [other for other in there if folders.numbers(JobData(data.root, other))]
        known = ", ".join(other for other in published if other != job.name) or "no other that was published"
        raise InputError(
            f"{job.name} takes its list from {name}, but the data folder {data.root} has no such job: it has {known}. "
            f"Check input.job, or make it: batchinfer run {name}"
        )
    try:
        snapshot = pointers.open_served(source)
    except NotFound as exc:
        raise InputError(
            f"{job.name} takes its list from {name}, which has no published version yet: batchinfer run {name}"
        ) from exc
    with snapshot:
        yield snapshot, Upstream(name, snapshot.number)


def _write(db: duckdb.DuckDBPyConnection, version: Snapshot, job: Job, target: Path, *, rows: bool) -> None:
    """The list as Parquet: the upstream's key columns, and its prediction or the items of a list in it."""
    spec = job.spec.input
    key = [column.name for column in version.manifest.key]
    value = spec.as_ or PREDICTION
    if value.lower() in map(str.lower, key):
        raise InputError(
            f"{spec.job} has a key column {value} already: "
            + (f"name the item otherwise, with input.as in {job.path}." if spec.as_ else "explode a list instead.")
        )
    if unknown := [name for name in spec.key if name not in (*key, value)]:
        raise InputError(
            f"{spec.job} has no column {unknown[0]} for the key of {job.name}: it has {', '.join([*key, value])}."
        )
    parquet = f"read_parquet({literal(str(version.folder / PREDICTIONS))})"
    own = ", ".join(f"{version_column(name)} AS {quoted(name)}" for name in key)
    if rows:
        version.verify()
    if spec.explode is None or not rows:
        sql = f"SELECT {own}, {PREDICTION} AS {quoted(value)} FROM {parquet}{'' if rows else ' LIMIT 0'}"
    else:
        place = json_path(*spec.explode.split(".")[1:])
        _check_lists(db, version, spec, f"SELECT {PREDICTION} AS value FROM {parquet}", place)
        # Equal items of one list are one row, told list by list: DISTINCT over all rows would hold them in memory.
        items = f"list_sort(list_distinct(json_extract({PREDICTION}::JSON, {literal(place + '[*]')})))"
        # What is neither text nor number becomes null, and so a bad row.
        text = "CASE WHEN json_type(item) IN ('VARCHAR', 'UBIGINT', 'BIGINT', 'DOUBLE') THEN item ->> '$' END"
        sql = (
            f"SELECT {', '.join(map(quoted, key))}, {text} AS {quoted(value)} "
            f"FROM (SELECT {own}, unnest({items}) AS item FROM {parquet})"
        )
    reader = db.sql(sql).to_arrow_reader(BATCH_ROWS)
    with os_errors(target), pq.ParquetWriter(target, reader.schema, compression="zstd") as writer:
        for batch in reader:  # by COPY, DuckDB would hold many of them so as to keep their order
            writer.write_batch(batch)


def _check_lists(
    db: duckdb.DuckDBPyConnection, version: Snapshot, spec: InputSpec, predictions: str, place: str
) -> None:
    """Raises InputError if no prediction has a list where the job looks for one."""
    head = f"No prediction of {spec.job}, version {version.manifest.version}, has a list at {spec.explode}, which input.explode names"
    if not version.manifest.is_json:
        raise InputError(f"{head}: its predictions are texts.")
    array = f"json_type(value::JSON, {literal(place)}) = 'ARRAY'"
    if not db.execute(f"SELECT 1 FROM ({predictions}) WHERE {array} LIMIT 1").fetchall():
        sample = db.execute(f"SELECT value FROM ({predictions}) LIMIT {SAMPLE}").fetchall()
        there = dict.fromkeys(found for (text,) in sample for found in _lists(json.loads(text), PREDICTION))
        raise InputError(f"{head}: {'there is one at ' + ', '.join(there) if there else 'they hold no lists'}.")


def _lists(value: Any, place: str) -> Iterator[str]:
    """The places of a prediction that hold lists."""
    if isinstance(value, list):
        yield place
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _lists(part, f"{place}.{name}")
