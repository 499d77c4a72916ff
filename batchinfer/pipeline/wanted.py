"""Which rows a trial takes: the first of the list, one by its key, or values that the list need not have."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchinfer.core import keys
from batchinfer.core.columns import Column, typed
from batchinfer.core.database import query_engine
from batchinfer.core.home import JobData
from batchinfer.errors import InputError, NotFound, SpecError, UsageError, did_you_mean
from batchinfer.inputs.files import list_columns, list_files, open_list
from batchinfer.inputs.parquet import ROW, ListSource
from batchinfer.job.reader import Job
from batchinfer.planning.question import Question
from batchinfer.prompting.likelihood import used_columns


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person wants to try.

    texts: values by column: of the template's columns, or of the key; none for the first rows of the list.
    count: how many of these.
    input: the list in place of the job's own.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    count: int = 1
    input: Path | None = None


@dataclass(frozen=True, slots=True)
class TriedRow:
    """A row that is tried.

    values: what the template is filled with.
    query: its key; None for values that a person gave.
    """

    values: dict[str, Any]
    query: dict[str, Any] | None = None


def nameable_columns(job: Job) -> list[str]:
    """The columns that a row can be named by, or made of."""
    prompt = job.spec.prompt
    used = [] if prompt is None else used_columns(prompt, job.spec.output, str(job.path))
    return [*job.spec.input.key, *used]


def rows_of(job: Job, data: JobData, question: Question, wanted: Wanted) -> list[TriedRow]:
    """The rows that are wanted. Raises UsageError, NotFound or InputError."""
    used, key, texts = question.columns, job.spec.input.key, wanted.texts
    if texts and all(name in texts for name in used):
        return [_given(job, data, wanted, used)]
    if texts and texts.keys() != set(key):
        raise _unclear(texts, used, key)
    with tempfile.TemporaryDirectory() as folder:
        files, _ = list_files(job, data, wanted.input, Path(folder))
        source = open_list(job, files, used)
        if texts:
            return [_by_key(source, {column.name: typed(texts[column.name], column) for column in source.key})]
        rows = [*itertools.islice(_good_rows(source), wanted.count)]
    if not rows:
        raise InputError(f"No row of {files[0]} can be asked: batchinfer plan {job.name} counts the bad ones.")
    return rows


def _unclear(texts: Mapping[str, str], used: list[str], key: list[str]) -> UsageError:
    """Values that are neither a whole prompt's nor a whole key's."""
    for name in texts:
        if name not in (*used, *key):
            hint = did_you_mean(name, [*used, *key])
            return UsageError(f"Neither the template nor the key has a column {name}{f'; {hint}' if hint else '.'}")
    return UsageError(
        f"Give a whole key ({', '.join(key)}) to try that row of the list, or a value for each column of the template "
        f"({', '.join(used)}) to try values of your own."
    )


def _given(job: Job, data: JobData, wanted: Wanted, used: list[str]) -> TriedRow:
    """The values that a person gave, of the kinds that the list has, or text where there is no list."""
    unknown = [name for name in wanted.texts if name not in used]
    if unknown and set(unknown) - set(job.spec.input.key):
        raise _unclear(wanted.texts, used, job.spec.input.key)
    try:
        source = list_columns(job, data, wanted.input, used=used)[0]
    except (InputError, NotFound, SpecError):
        return TriedRow({name: typed(wanted.texts[name], Column(name, "string")) for name in used})
    values = {name: typed(wanted.texts[name], Column(name, source.kinds[name])) for name in used}
    times = [name for name in used if source.kinds[name] == "timestamp"]
    return TriedRow(values | {name: _moment(values[name], zoned=name in source.zoned) for name in times})


def _moment(time: datetime, *, zoned: bool) -> datetime:
    """A time as a template would get it out of the list: in UTC, which it says if the column has zones."""
    moment = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    return moment if zoned else moment.replace(tzinfo=None)


def _good_rows(source: ListSource) -> Iterator[TriedRow]:
    for batch in source.batches():
        yield from (_row(record, source) for record in batch.good.to_pylist())


def _row(record: Mapping[str, Any], source: ListSource) -> TriedRow:
    return TriedRow(source.template_values(record), {column.name: record[column.name] for column in source.key})


def _by_key(source: ListSource, query: dict[str, Any]) -> TriedRow:
    """The first row of the list with this key. Raises NotFound, or InputError for one that cannot be asked."""
    wanted = keys.lookup_hash(list(query.values()), source.key, source.normalize)
    for batch in source.batches():
        if found := _with_hash(batch.good, wanted, source):
            return _row(found, source)
        if found := _with_hash(batch.lost, wanted, source):
            fault = next(bad for bad in batch.bad if bad.row == found[ROW])
            raise InputError(f"That row cannot be asked: {fault.detail}")
    raise NotFound(f"The list has no row with {', '.join(f'{name}={value}' for name, value in query.items())}.")


def _with_hash(batch: pa.Table, wanted: bytes, source: ListSource) -> dict[str, Any] | None:
    """The first row of a batch whose key has this hash."""
    with query_engine() as db:
        db.register("batch", batch)
        sql = f"FROM batch WHERE {keys.lookup_hash_sql(source.key, source.normalize)} = ? LIMIT 1"
        found: list[dict[str, Any]] = db.sql(sql, params=[wanted]).to_arrow_table().to_pylist()
    return found[0] if found else None
