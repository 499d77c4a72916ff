"""Predictions made elsewhere, or corrected by people: Parquet → the cache's table `imports`. They win over the model's."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer import keys
from batchinfer.errors import InputError, NotFound
from batchinfer.home import JobHome
from batchinfer.jobfile import Job
from batchinfer.output import is_json
from batchinfer.source import BATCH_ROWS, Source, find_files, job_files
from batchinfer.store import Store

SCHEMA = pa.schema(
    {
        "lookup": pa.binary(),
        "query": pa.string(),
        "prediction": pa.string(),
        "score": pa.float64(),
        "author": pa.string(),
    }
)
PREDICTION, SCORE, AUTHOR = "prediction", "score", "author"


def add(job: Job, home: JobHome, path: Path, author: str | None) -> tuple[int, int]:
    """Takes a file in, whole or not at all; returns the import's number and its rows. Raises InputError."""
    files = find_files(path)
    spec = job.spec.input.model_copy(update={"where": {}, "optional": []})
    source = Source(files, spec, [])  # checks that the key columns are there, and of which kinds
    _check_kinds(job, source)
    _check_all_good(source, path)
    home.prepare(job.path)
    with home.run_lock(f"batchinfer import {job.name}"):
        store = Store(home.cache)
        store.prepare()
        counted: list[int] = []
        number = store.add_import(_batches(job, source, files, author, counted))
    return number, sum(counted)


def listing(home: JobHome) -> list[dict[str, Any]]:
    """One row an import."""
    return Store(home.cache).imports() if home.cache.exists() else []


def undo(job: Job, home: JobHome, number: int) -> int:
    """Takes an import back; returns its rows. Raises NotFound."""
    known = [row["import_id"] for row in listing(home)]
    if number not in known:
        raise NotFound(f"There is no import {number}; there are {', '.join(map(str, known)) or 'none'}.")
    with home.run_lock(f"batchinfer import {job.name}"):
        return Store(home.cache).undo_import(number)


def _check_kinds(job: Job, source: Source) -> None:
    """The key must be of the kinds that the job's own list has, or its entries would never be found."""
    if job.spec.input.path is None:
        return
    try:
        listed = Source(job_files(job), job.spec.input, [])
    except InputError:
        return  # no list yet: a job may begin with imports
    for ours, theirs in zip(source.key, listed.key, strict=True):
        if ours.kind != theirs.kind:
            raise InputError(
                f"The column {ours.name} holds {ours.kind} values, but the job's list has {theirs.kind}: convert it."
            )


def _check_all_good(source: Source, path: Path) -> None:
    seen: set[bytes] = set()
    for batch in source.batches():
        if batch.bad:
            raise InputError(f"{path}, row {batch.bad[0].row}: {batch.bad[0].detail} Nothing was taken in.")
        for row in batch.good.select([column.name for column in source.key]).to_pylist():
            key = keys.lookup_key(list(row.values()), source.key, source.normalize)
            if key in seen:
                raise InputError(f"{path} has two predictions for {row}: keep one. Nothing was taken in.")
            seen.add(key)


def _batches(
    job: Job, source: Source, files: list[Path], author: str | None, counted: list[int]
) -> Iterator[pa.RecordBatch]:
    as_json, key = is_json(job.spec.output), [column.name for column in source.key]
    for path in files:
        names = pq.read_schema(path).names
        if PREDICTION not in names:
            raise InputError(f"{path.name} has no column {PREDICTION}: it has {', '.join(names)}.")
        if PREDICTION in key:
            raise InputError(f"The key column {PREDICTION} bears the name of what is imported: rename it in the list.")
        values = [PREDICTION, *(name for name in (SCORE, AUTHOR) if name in names and name not in key)]
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH_ROWS, columns=[*key, *values]):
                    queries = source.check(batch, 0, path).good.select(key).to_pylist()
                    found = batch.select(values).to_pylist()
                    rows = [
                        _row(query, row, source, author, as_json=as_json)
                        for query, row in zip(queries, found, strict=True)
                    ]
                    counted.append(len(rows))
                    yield pa.RecordBatch.from_pylist(rows, SCHEMA)
        except (pa.ArrowException, OSError, TypeError, ValueError) as exc:  # of another type, not UTF-8, damaged
            raise InputError(f"{path}: a value cannot be used: {exc}. Nothing was taken in.") from exc


def _row(
    query: dict[str, Any], row: dict[str, Any], source: Source, author: str | None, *, as_json: bool
) -> dict[str, Any]:
    score = row.get(SCORE)
    if row[PREDICTION] is None:
        raise InputError(
            f"The prediction of {query} is null: leave the row out, or give a value. Nothing was taken in."
        )
    try:
        prediction = as_prediction(row[PREDICTION], as_json=as_json)
    except ValueError as exc:
        raise InputError(f"The prediction of {query} {exc}. Nothing was taken in.") from exc
    return {
        "lookup": keys.lookup_key(list(query.values()), source.key, source.normalize),
        "query": json.dumps({name: _plain(part) for name, part in query.items()}, ensure_ascii=False),
        "prediction": prediction,
        "score": score if score is None or math.isfinite(score) else None,
        "author": row.get(AUTHOR) or author,
    }


def as_prediction(given: Any, *, as_json: bool) -> str:
    """A value of a Parquet column as the JSON text of a prediction. as_json: a text is JSON already, and is checked.

    Raises ValueError, which says what is wrong after the value's name.
    """
    value = _plain(given)
    if as_json and isinstance(value, str):
        try:
            value = json.loads(text := value)
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # NaN and half characters can be read only
        except (ValueError, RecursionError) as exc:
            raise ValueError(f"should be JSON, but is {text[:80]!r}: {exc}") from exc
    if not as_json and not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, default=_plain)
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError as exc:
        raise ValueError(f"cannot be JSON: {exc}") from exc


def _plain(value: Any) -> Any:
    """A value as JSON or text can hold it."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Decimal):
        return str(value)
    return value.isoformat() if isinstance(value, date | datetime | time) else value
