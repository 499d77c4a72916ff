"""Chained jobs: the served version of one job, exploded if wished, as the query list of the next."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.core.database import LIST_ROWS, scratch_database
from batchinfer.core.duckdb_paths import parquet_rows
from batchinfer.core.files import os_errors
from batchinfer.core.home import JobData, job_names
from batchinfer.core.long_rows import read_parts
from batchinfer.core.long_texts import LongTexts
from batchinfer.core.parquet_batches import row_batches
from batchinfer.core.sql import literal, quoted
from batchinfer.errors import BatchinferError, InputError, NotFound, NotPublished
from batchinfer.inputs.carried import UpstreamList, carried_column, load_carried, marked_json, with_carried
from batchinfer.job import reader
from batchinfer.job.parts import PREDICTION, Part
from batchinfer.job.reader import Job, faulty
from batchinfer.job.spec import InputSpec
from batchinfer.versions import folders, pointers
from batchinfer.versions.layout import PREDICTIONS, version_column
from batchinfer.versions.snapshot import Snapshot

FIELD = ("input", "explode")
SAMPLE = 100  # predictions that are looked at for an error message


@dataclass(frozen=True, slots=True)
class Upstream:
    """The version that a chained job's list comes from.

    job: its name.
    version: its number.
    """

    job: str
    version: int

    def __str__(self) -> str:
        return f"{self.job}, version {self.version}"


def write_list(
    job: Job,
    data: JobData,
    scratch: Path,
    own_list: Callable[[], UpstreamList] | None = None,
    *,
    rows: bool = True,
    rows_at_once: int = LIST_ROWS,
) -> tuple[Path, Upstream]:
    """Writes the list of a chained job as Parquet below `scratch`, from the version that its upstream serves.

    Raises NotFound where there is no such version, InputError, SpecError or StoreError.

    own_list: gives the list of the upstream itself, for a job that carries columns of it.
    rows: False for those who only look at the columns; such a list is not whole.
    rows_at_once: how many are held in memory.
    """
    _check_no_circle(job, data)
    with _served(job, data) as (version, upstream):
        target = scratch / f"{upstream.job}-{upstream.version}.parquet"
        _check_key(version, job)
        if job.spec.input.explode and not version.manifest.is_json and rows:
            raise InputError(f"{_no_list(version, job.spec.input)}: its predictions are texts.", field=FIELD)
        if rows:
            version.verify()
        with scratch_database(scratch) as db, contextlib.closing(LongTexts(scratch)) as texts:
            nested = frozenset[str]()
            if job.spec.input.carry and own_list is not None:
                nested = load_carried(db, texts, own_list(), version.manifest, job.spec.input.carry, rows=rows)
            select = partial(_list_sql, version, job.spec.input)
            schema = _told(_columns(db, version, select), version, nested)
            with os_errors(target), pq.ParquetWriter(target, schema, compression="zstd") as writer:
                written = 0
                for batch in _batches(db, version, job.spec.input, select, rows_at_once, texts) if rows else ():
                    writer.write_batch(batch.cast(schema))
                    written += batch.num_rows
            if rows and not written:
                _check_lists(db, version, job.spec.input)
    return target, upstream


def _columns(db: duckdb.DuckDBPyConnection, version: Snapshot, select: Callable[[str], str]) -> pa.Schema:
    """What the query gives."""
    rows = f"(FROM {parquet_rows(version.folder / PREDICTIONS)} LIMIT 0)"
    return db.sql(select(rows)).to_arrow_reader().schema


def _batches(
    db: duckdb.DuckDBPyConnection,
    version: Snapshot,
    spec: InputSpec,
    select: Callable[[str], str],
    rows_at_once: int,
    texts: LongTexts,
) -> Iterator[pa.RecordBatch]:
    """The rows of the list, some at a time. By COPY, DuckDB would hold many of them so as to keep their order."""
    lists = {} if spec.explode is None else {PREDICTION: [Part.parse(spec.explode).path]}
    yield from read_parts(db, version.folder / PREDICTIONS, select, rows_at_once, lists, texts=texts)


def _told(schema: pa.Schema, version: Snapshot, nested: Container[str]) -> pa.Schema:
    """The list's columns, times with a zone where the upstream's list has them so. nested: those that are marked as JSON."""
    zoned = {column.name for column in version.manifest.key if column.zoned}
    moment = pa.timestamp("us", "UTC")
    fields = (field.with_type(moment) if field.name in zoned else field for field in schema)
    return pa.schema([marked_json(field) if field.name in nested else field for field in fields])


def _check_no_circle(job: Job, data: JobData) -> None:
    """Raises SpecError for a chain that closes on itself."""
    names, link = [job.name], job.spec.input.job
    while link is not None and link not in names:
        names.append(link)
        link = _upstream_of(JobData(data.root, link))
    if link is not None:
        chain = " → ".join([*names, link])
        said = f"the chain closes on itself ({chain}): let one of them read a file instead."
        raise faulty(job, [(("input", "job"), said)])


def _upstream_of(data: JobData) -> str | None:
    """The job from which another one takes its list: by its job file, or else by its served version."""
    with contextlib.suppress(BatchinferError):
        if bound := data.record().job_file:
            return reader.load(bound, {}).spec.input.job
    with contextlib.suppress(BatchinferError), pointers.open_served(data) as version:
        return version.manifest.spec.upstream
    return None


@contextlib.contextmanager
def _served(job: Job, data: JobData) -> Iterator[tuple[Snapshot, Upstream]]:
    """The version of the upstream job that is served, open, so that it is not removed. Raises NotFound or StoreError."""
    name = str(job.spec.input.job)
    source = JobData(data.root, name)
    if not source.is_known:
        there = job_names(data.root) if data.root.is_dir() else []
        published = [other for other in there if folders.numbers(JobData(data.root, other))]
        known = ", ".join(other for other in published if other != job.name) or "no other that was published"
        raise NotFound(
            f"{job.name} takes its list from {name}, but the data folder {data.root} has no such job: it has {known}.",
            fix=f"correct the name, or make it: batchinfer run {name}",
            field=("input", "job"),
        )
    try:
        snapshot = pointers.open_served(source)
    except NotFound as exc:
        raise NotPublished(
            f"{job.name} takes its list from {name}, which has no published version in the data folder {data.root} yet",
            fix=f"batchinfer run {name}",
        ) from exc
    with snapshot:
        yield snapshot, Upstream(name, snapshot.number)


def _list_sql(version: Snapshot, spec: InputSpec, predictions: str) -> str:
    """SQL for the list: the upstream's key columns, what is carried, and its prediction or the items of a list in it.

    predictions: SQL for rows of the version.
    """
    key = [column.name for column in version.manifest.key]
    value = quoted(spec.as_ or PREDICTION)
    found = with_carried(predictions) if spec.carry else predictions
    own = ", ".join(
        [
            *(f"{version_column(name)} AS {quoted(name)}" for name in key),
            *(f"{carried_column(name)} AS {quoted(name)}" for name in spec.carry),
        ]
    )
    if spec.explode is None:
        return f"SELECT {own}, {PREDICTION} AS {value} FROM {found}"
    place = Part.parse(spec.explode).json_path
    # Equal items of one list are one row, found list by list: DISTINCT over all rows would hold them in memory.
    items = f"list_sort(list_distinct(json_extract({PREDICTION}::JSON, {literal(place + '[*]')})))"
    # An item that is neither text nor number becomes null, and so a bad row.
    text = "CASE WHEN json_type(item) IN ('VARCHAR', 'UBIGINT', 'BIGINT', 'DOUBLE') THEN item ->> '$' END"
    return (
        f"SELECT {', '.join(map(quoted, [*key, *spec.carry]))}, {text} AS {value} "
        f"FROM (SELECT {own}, unnest({items}) AS item FROM {found})"
    )


def _check_key(version: Snapshot, job: Job) -> None:
    """Raises InputError where the job's key does not fit the columns of its list."""
    spec, key = job.spec.input, [column.name for column in version.manifest.key]
    value = spec.as_ or PREDICTION
    if value.lower() in map(str.lower, key):
        advice = "name the item otherwise." if spec.as_ else "explode a list instead."
        field = ("input", "as" if spec.as_ else "job")
        raise InputError(f"{spec.job} has a key column {value} already: {advice}", field=field)
    for place, name in enumerate(spec.carry):
        if name.lower() in map(str.lower, (*key, value)):
            raise InputError(
                f"{spec.job} has a key column {name} already: leave it out.", field=("input", "carry", place)
            )
    if unknown := [name for name in spec.key if name not in (*key, value, *spec.carry)]:
        raise InputError(
            f"{spec.job} has no column {unknown[0]} for the key of {job.name}: it has {', '.join([*key, value, *spec.carry])}.",
            field=("input", "key", spec.key.index(unknown[0])),
        )


def _check_lists(db: duckdb.DuckDBPyConnection, version: Snapshot, spec: InputSpec) -> None:
    """Raises InputError if no prediction has a list where the job looks for one. To be asked where none gave a row."""
    if spec.explode is None:
        return
    path = version.folder / PREDICTIONS
    lists = {PREDICTION: [Part.parse(spec.explode).path]}
    array = f"json_type({PREDICTION}::JSON, {literal(Part.parse(spec.explode).json_path)}) = 'ARRAY'"
    if any(
        batch.num_rows
        for batch in read_parts(db, path, lambda rows: f"SELECT 1 FROM {rows} WHERE {array}", LIST_ROWS, lists, 1)
    ):
        return
    there = dict.fromkeys(found for text in _sample(path) for found in _lists(json.loads(text), PREDICTION))
    said = "there is one at " + ", ".join(there) if there else "they hold no lists"
    raise InputError(f"{_no_list(version, spec)}: {said}.", field=FIELD)


def _no_list(version: Snapshot, spec: InputSpec) -> str:
    return f"no prediction of {spec.job}, version {version.manifest.version}, has a list at {spec.explode}"


def _sample(path: Path) -> Iterator[str]:
    """The first predictions of a version, one by one."""
    batches = row_batches(path, [PREDICTION], 1)
    return (batch.column(0)[0].as_py() for batch in itertools.islice(batches, SAMPLE))


def _lists(value: Any, place: str) -> Iterator[str]:
    """The places of a prediction that hold lists."""
    if isinstance(value, list):
        yield place
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _lists(part, f"{place}.{name}")
