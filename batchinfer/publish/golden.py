"""Golden rows: keys whose right answers are known, and how many of them a candidate answers so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.cache.imports import as_prediction
from batchinfer.core import keys
from batchinfer.core.columns import Column, query_text
from batchinfer.core.database import LIST_ROWS
from batchinfer.core.long_texts import MOST_TEXT, oversized
from batchinfer.core.parquet_batches import row_batches
from batchinfer.errors import InputError
from batchinfer.inputs.files import refuse_table
from batchinfer.inputs.parquet import ListSource
from batchinfer.inputs.shortest import plain_values
from batchinfer.job.reader import Job, placing
from batchinfer.job.spec import JobSpec
from batchinfer.publish.candidate import Candidate

ANSWER = "answer"
SCHEMA = pa.schema({"lookup_hash": pa.binary(), "query": pa.string(), "answer": pa.string()})
FIELD = "gate.golden.path"


@dataclass(frozen=True, slots=True)
class Golden:
    """A golden file that was read and found good.

    rows: of SCHEMA, the answer as JSON.
    compare: how answers are compared, as in the job file.
    """

    rows: pa.Table
    compare: str


@dataclass(frozen=True, slots=True)
class Wrong:
    """A golden row that the candidate answers otherwise.

    query: its lookup key, as JSON.
    wanted: the answer.
    got: what the candidate has; None without a prediction.
    """

    query: str
    wanted: str
    got: str | None


@dataclass(frozen=True, slots=True)
class Score:
    """How a candidate answers golden rows.

    rows: all of them, less those whose key a narrowed list does not have.
    right: those answered so.
    wrong: some of the others.
    """

    rows: int = 0
    right: int = 0
    wrong: tuple[Wrong, ...] = ()


def read_golden(job: Job, key: Sequence[Column]) -> Golden | None:
    """The job's golden rows, or None if it names none. key: of the job's list. Raises InputError or SpecError."""
    spec = job.spec.gate.golden
    return None if spec is None else read_answers(job, FIELD, spec.path, spec.compare, key)


def read_answers(
    job: Job, field: str, name: str, compare: str, key: Sequence[Column], what: str = "golden file"
) -> Golden:
    """The rows of a file of keys and right answers. Raises InputError or SpecError.

    field: of the job file, which names it. name: the file. compare: how answers are compared. key: of the job's list.
    what: what people call such a file.
    """
    with placing(job):
        path = _existing(job, field, name)
    source = ListSource([path], job.spec.input.model_copy(update={"where": {}, "optional": []}), [])
    names = pq.read_schema(path).names
    if ANSWER not in names:
        raise InputError(f"The {what} {path} has no column {ANSWER}: it has {', '.join(names)}.")
    if ANSWER in job.spec.input.key:
        raise InputError(
            f"The key column {ANSWER} has the name of the {what}'s column of answers: rename it in the list."
        )
    for ours, theirs in zip(source.key, key, strict=True):
        if ours.kind != theirs.kind:
            raise InputError(
                f"The column {ours.name} of the {what} {path} holds {ours.kind} values, "
                f"but the job's list has {theirs.kind}: convert it."
            )
    if pq.read_metadata(path).num_rows == 0:
        raise InputError(f"The {what} {path} has no rows: give it some, or leave {field} out.")
    return Golden(_read(job.spec, compare, source, what), compare)


def _existing(job: Job, field: str, name: str) -> Path:
    """The file, if it is one. Raises InputError or SpecError."""
    path, place = job.inside(field, name), tuple(field.split("."))
    if path.is_dir():
        refuse_table(path)
        raise InputError(f"{path} is a folder: name one Parquet file.", field=place)
    if not path.is_file():
        raise InputError(f"There is no file {path}.", field=place)
    return path


def _read(spec: JobSpec, compare: str, source: ListSource, what: str) -> pa.Table:
    path, key = source.files[0].path, [column.name for column in source.key]
    seen: set[bytes] = set()
    tables, row = [], 0
    try:
        for raw in row_batches(path, [*key, ANSWER], LIST_ROWS):
            checked = source.check(raw, row, path)
            if checked.bad:
                raise InputError(f"The {what} {path}, row {checked.bad[0].row}: {checked.bad[0].detail}")
            records = []
            for query, answer in zip(
                checked.good.select(key).to_pylist(), plain_values(raw.column(ANSWER)), strict=True
            ):
                row += 1
                place = f"The {what} {path}, row {row}"
                lookup_hash = keys.lookup_hash(list(query.values()), source.key, source.normalize)
                if lookup_hash in seen:
                    raise InputError(f"{place}: there is another row of the same key, {query_text(query)}: keep one.")
                seen.add(lookup_hash)
                text = _answer(answer, spec, compare, place)
                records.append(
                    {
                        "lookup_hash": lookup_hash,
                        "query": json.dumps(query, ensure_ascii=False, default=str),
                        "answer": text,
                    }
                )
            tables.append(pa.Table.from_pylist(records, SCHEMA))
    except (pa.ArrowException, OSError, TypeError, ValueError) as exc:  # not UTF-8, a time too fine, damaged
        raise InputError(f"The {what} {path} has a value that cannot be used: {exc}") from exc
    return pa.concat_tables(tables)


def _answer(answer: Any, spec: JobSpec, compare: str, place: str) -> str:
    """An answer as JSON, read as an import's prediction is. Raises InputError."""
    if answer is None or answer == "":
        raise InputError(
            f"{place}: the answer is {'null' if answer is None else 'empty'}: leave the row out, or give one."
        )
    try:
        text = as_prediction(answer, as_json=spec.output.is_json)
    except ValueError as exc:
        raise InputError(
            f"{place}: the answer {exc}. It is read as predictions are; a text in JSON has quotes."
        ) from exc
    if len(text) > MOST_TEXT // 4 and (size := len(text.encode())) > MOST_TEXT + 2:  # its quotes
        raise InputError(f"{place}: the answer holds {oversized(size)}.")
    if compare == "equal" and spec.output.choices and (value := json.loads(text)) not in spec.output.choices:
        raise InputError(f"{place}: the answer {value!r} is not one of output.choices, so it would never be given.")
    return text


def score(candidate: Candidate, golden: Golden, most: int) -> Score:
    """How many golden rows a candidate answers rightly, and up to `most` of the others."""
    rows, right, wrong, as_json = 0, 0, list[Wrong](), candidate.spec.output.is_json
    for batch in candidate.answers_to(golden.rows):
        rows += batch.num_rows
        for row in batch.to_pylist():
            got = row["prediction"]
            if got is not None and is_right(
                json.loads(got) if as_json else got, json.loads(row["answer"]), golden.compare
            ):
                right += 1
            elif len(wrong) < most:
                wanted = row["answer"] if as_json else json.loads(row["answer"])
                wrong.append(Wrong(row["query"], wanted, got))
    return Score(rows, right, tuple(wrong))


def is_right(prediction: Any, answer: Any, compare: str) -> bool:
    """Whether a prediction is the answer, or, with contains, holds it.

    A text holds a part of it. A list holds its items, and a list of some of them. An object holds what any of its
    values holds, and an object of which each field is held by its own field of that name.
    """
    if _same(prediction, answer):
        return True
    if compare == "equal":
        return False
    if isinstance(prediction, str):
        return isinstance(answer, str) and answer in prediction
    if isinstance(prediction, list):
        wanted = answer if isinstance(answer, list) else [answer]
        return all(any(_same(item, one) for item in prediction) for one in wanted)
    if isinstance(prediction, dict) and isinstance(answer, dict):
        return all(name in prediction and is_right(prediction[name], part, compare) for name, part in answer.items())
    return isinstance(prediction, dict) and any(is_right(part, answer, compare) for part in prediction.values())


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON values: 1 is 1.0, but not true, which Python would have it be."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(part, other[name]) for name, part in one.items())
    return bool(one == other)
