"""A review file that people have marked → verdicts in the cache, taken in whole or not at all."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from jsonschema import Draft202012Validator, ValidationError

from batchinfer import errors
from batchinfer.cache import imports, verdicts
from batchinfer.cache.imports import as_prediction
from batchinfer.cache.verdicts import ACCEPT, CORRECT, REJECT
from batchinfer.core import keys
from batchinfer.core.columns import Column, typed
from batchinfer.core.database import one
from batchinfer.core.files import user_name
from batchinfer.core.home import JobHome
from batchinfer.errors import InputError, UsageError
from batchinfer.inputs.csv_file import as_parquet
from batchinfer.job.reader import Job
from batchinfer.job.spec import JobSpec
from batchinfer.planning.prepare import Options, planned, quiet
from batchinfer.publish import contents
from batchinfer.review.export import PERSON, column_of, comparable, digest, uncell
from batchinfer.review.predictions import marks
from batchinfer.versions.pointers import served_now

LINE = "\x1fline"
SHOWN = 5  # faults that are named
LONGEST = 300  # characters of a key that is shown
BATCH_ROWS = 16_384
SCHEMA = pa.schema(
    {
        "line": pa.int64(), "place": pa.string(), "lookup": pa.binary(), "query": pa.string(), "verdict": pa.string(), "value": pa.string(),
        "prediction": pa.string(), "author": pa.string(), "follows": pa.bool_(),
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Taken:
    """What a review file came to. import_id: None where nothing in it was judged.

    no_longer_proposed: verdicts on values that would not be published now in any case; they are kept all the same.
    """

    import_id: int | None
    accepted: int
    rejected: int
    corrected: int
    not_judged: int
    no_longer_proposed: int


def is_review(path: Path, spec: JobSpec) -> bool:
    """Whether a file is a review. One that cannot be read is none: who reads it as something else says why."""
    return bool(marks(_columns_of(path), spec.input.key))


def _columns_of(path: Path) -> list[str]:
    try:
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                first = file.readline()
            return [name for sign in ",;" for name in next(csv.reader([first], delimiter=sign), [])]
        return list(pq.read_schema(path).names) if path.is_file() else []
    except (OSError, ValueError, csv.Error, pa.ArrowException):
        return []


def add(
    job: Job, home: JobHome, path: Path, author: str | None, options: Options, say: Callable[[str], None] = quiet
) -> Taken:
    """Takes the verdicts in. author: of rows that name none; else the user. Raises InputError."""
    home.prepare(job.path)
    with (
        home.run_lock(f"batchinfer import {job.name}"),
        planned(job, home, options, holds_lock=True, gated=False, say=say) as p,
        home.scratch() as scratch,
    ):
        reader = Reader(job.spec, p.plan.source.key, p.plan.source.normalize, author or user_name())
        _read(p.plan.db, reader, path, scratch)
        if faults := reader.faults or _clashes(p.plan.db, job.spec):
            raise InputError(_refusal(path, faults, reader.more))
        counts = dict(p.plan.db.execute("SELECT verdict, count(*) FROM marked WHERE NOT follows GROUP BY 1").fetchall())
        number = None
        if counts:
            contents.collect(p.plan, p.store, job.spec, served_now(home)[1])
            number = imports.add(
                p.store, p.plan.db,
                "SELECT lookup, query, prediction, author, verdict, value, follows FROM marked ORDER BY line, follows",
                imports.key_of(p.plan.source.key, p.plan.source.normalize),
            )  # fmt: skip
        stale = _no_longer_proposed(p.plan.db, job.spec) if counts else 0
        accepted, rejected, corrected = (counts.get(word, 0) for word in (ACCEPT, REJECT, CORRECT))
        return Taken(number, accepted, rejected, corrected, reader.blank, stale)


def _read(db: duckdb.DuckDBPyConnection, reader: Reader, path: Path, scratch: Path) -> None:
    """Makes the table `marked`: one row a verdict. In a checking job a correction is two: on the old term, and on the new."""
    is_csv = path.suffix.lower() == ".csv"
    db.register("batch", SCHEMA.empty_table())
    db.execute("CREATE OR REPLACE TABLE marked AS FROM batch")
    db.unregister("batch")
    parquet, row = as_parquet(path, scratch, LINE), 0
    try:
        with pq.ParquetFile(parquet) as file:
            _check_job(file, reader, path, is_csv=is_csv)
            names = reader.names(path, file.schema_arrow.names)
            for batch in file.iter_batches(BATCH_ROWS):
                records: list[dict[str, Any]] = []
                for given in batch.to_pylist():
                    row += 1
                    cells = {
                        name: uncell(cell) if is_csv and isinstance(cell, str) else cell
                        for name, cell in zip(names, given.values(), strict=True)
                    }
                    records += reader.read(cells, f"line {given[LINE]}" if is_csv else f"row {row}", row)
                db.register("batch", pa.Table.from_pylist(records, SCHEMA))
                db.execute("INSERT INTO marked FROM batch")
                db.unregister("batch")
    except (pa.ArrowException, OSError, ValueError) as exc:
        raise InputError(f"The review {path} cannot be read: {exc}") from exc


def _check_job(file: pq.ParquetFile, reader: Reader, path: Path, *, is_csv: bool) -> None:
    """Raises InputError if the file begins with another job's rows: that tells more than the columns that it lacks."""
    if "job" in file.schema_arrow.names:
        columns = ["job", LINE] if is_csv else ["job"]
        batches = (batch.to_pylist() for batch in file.iter_batches(SHOWN, columns=columns))
        first: list[dict[str, Any]] = next(batches, [])
        faults = [
            f"{f'line {row[LINE]}' if is_csv else f'row {number}'}: {fault}"
            for number, row in enumerate(first, 1)
            if row["job"] is not None and (fault := reader.of_another_job(row["job"]))
        ]
        if faults and len(faults) == len(first):
            raise InputError(_refusal(path, faults, file.metadata.num_rows - len(first)))


class Reader:
    """Reads rows of a review. faults: the first of what is wrong with it; more: how many others; blank: rows not judged."""

    def __init__(self, spec: JobSpec, key: Sequence[Column], normalize: Sequence[str], author: str) -> None:
        self._spec, self._key, self._normalize, self._author = spec, list(key), normalize, author
        schema = spec.output.schema_
        self._schema = None if schema is None else Draft202012Validator(schema)
        self._checking, self._given = verdicts.is_checking(spec), "prediction" in verdicts.wanted(spec)
        self.faults: list[str] = []
        self.more = 0
        self.blank = 0

    def of_another_job(self, job: Any) -> str | None:
        """What to say of a row that was made for another job."""
        name = self._spec.name
        return None if job == name else f"it was made for the job {errors.shortened(str(job))}, not for {name}"

    def names(self, path: Path, given: Sequence[str]) -> list[str]:
        """The columns of a file as a review calls them, whatever their case. Raises InputError if one is missing."""
        own = ["prediction"] if self._checking else []
        needed = ["job", *(column_of(column.name) for column in self._key), "value", *own, "check", "verdict"]
        ours = {name.lower(): name for name in [*needed, *PERSON]}
        names = [ours.get(name.strip().lower(), name) for name in given]
        marked = marks(given, [column.name for column in self._key])
        for name in needed:
            if name not in names:
                raise InputError(
                    f"{path} has the column {', '.join(marked)}, so it is a review, but it has no column {name}: make it "
                    "anew, with batchinfer review, or rename that column if it holds plain predictions. Nothing was taken in."
                )
        for name in ours.values():
            if names.count(name) > 1:
                raise InputError(
                    f"The review {path} has the column {name} more than once: remove one. Nothing was taken in."
                )
        return names

    def read(self, row: Mapping[str, Any], place: str, number: int) -> list[dict[str, Any]]:
        """The verdict of a row, as records of SCHEMA: none where it was not judged, or is at fault."""
        try:
            return [record | {"line": number, "place": place} for record in self._verdict(row)]
        except (ValueError, UsageError) as exc:
            if len(self.faults) < SHOWN:
                self.faults.append(f"{place}: {exc}")
            else:
                self.more += 1
            return []

    def _verdict(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        if fault := self.of_another_job(row["job"]):
            raise ValueError(fault)
        word, corrected = (str(row.get(name) or "").strip() for name in ("verdict", "corrected"))
        if not word and not corrected:
            self.blank += 1
            return []
        verdict = word.casefold() or CORRECT
        if verdict not in (ACCEPT, REJECT, CORRECT):
            raise ValueError(f"the verdict is {errors.shortened(word)}, but should be accept, reject or correct")
        query, lookup, value = self._known(row)
        if verdict == CORRECT and not corrected:
            raise ValueError("the verdict is correct, but there is no corrected value")
        answer = self._fitting(corrected) if corrected else None
        if answer is not None and self._is_no_change(answer, query, value):
            answer, verdict = None, ACCEPT if verdict == CORRECT else verdict
        if answer is not None and verdict != CORRECT:
            raise ValueError(f"the verdict is {verdict}, but there is a corrected value: say correct, or clear it")
        author = str(row.get("author") or "").strip() or self._author
        record = {"lookup": lookup, "query": _as_json(query), "verdict": verdict, "author": author, "follows": False}
        if not self._checking:
            return [record | {"value": self._stored(value), "prediction": answer}]
        accepted = None if self._given else self._stored(str(row["prediction"]))
        if verdict != CORRECT:
            return [record | {"prediction": accepted if verdict == ACCEPT else None}]
        new = query | {self._term.name: answer}
        return [
            record,
            record
            | {
                "lookup": self._lookup(new), "query": _as_json(new), "verdict": ACCEPT, "prediction": accepted,
                "follows": True,
            },
        ]  # fmt: skip

    def _is_no_change(self, answer: Any, query: dict[str, Any], value: str) -> bool:
        """Whether a corrected value is the value, or a corrected term the same key."""
        if self._checking:
            return self._lookup(query | {self._term.name: answer}) == self._lookup(query)
        given = answer if self._spec.output.is_json else json.loads(answer)
        return comparable(self._spec, given) == comparable(self._spec, value)

    def _known(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], bytes, str]:
        """The row's key, its hash, and the value that is judged. Raises ValueError where they are not what they were."""
        try:
            query = {column.name: _typed(row[column_of(column.name)], column) for column in self._key}
            lookup, value = self._lookup(query), str(row["value"])
            unchanged = digest(self._spec, lookup, value) == row["check"]
        except (ValueError, UsageError, AttributeError, TypeError, RecursionError):
            unchanged = False
        if not unchanged:
            raise ValueError(
                "the key or the value was changed since the review was made: put these cells back as batchinfer review wrote them"
            )
        return query, lookup, value

    @property
    def _term(self) -> Column:
        """The column that a checking job judges."""
        assert self._spec.match is not None
        return next(column for column in self._key if column.name == self._spec.match.terms[0])

    def _lookup(self, query: Mapping[str, Any]) -> bytes:
        return keys.lookup_key(list(query.values()), self._key, self._normalize)

    def _stored(self, value: str) -> str:
        """A prediction as entries hold it, as the JSON text that the cache holds."""
        return json.dumps(json.loads(value) if self._spec.output.is_json else value, ensure_ascii=False)

    def _fitting(self, corrected: str) -> Any:
        """What a person gives in place of a value: a term, or the JSON text of a prediction. Raises ValueError."""
        output = self._spec.output
        if self._checking:
            return _typed(corrected, self._term)
        if output.choices is not None and corrected not in output.choices:
            raise ValueError(
                f"the corrected value {errors.shortened(corrected)} is none of {', '.join(output.choices)}"
            )
        if output.pattern is not None and not re.fullmatch(output.pattern, corrected):
            raise ValueError(f"the corrected value {errors.shortened(corrected)} does not match output.pattern")
        if not output.is_json:
            return as_prediction(corrected, as_json=False)
        try:
            text = as_prediction(corrected, as_json=True)
        except ValueError as exc:
            raise ValueError(f"the corrected value {exc}") from exc
        if self._schema is not None:
            try:
                self._schema.validate(json.loads(text))
            except (ValidationError, RecursionError) as exc:
                why = exc.message[:200] if isinstance(exc, ValidationError) else "it is nested too deeply"
                raise ValueError(f"the corrected value breaks output.schema: {why}") from exc
        return text


def _typed(cell: Any, column: Column) -> Any:
    """A cell as a value of the key column. Raises UsageError or ValueError."""
    if cell is None:
        raise ValueError
    return typed(cell, column) if isinstance(cell, str) else cell


def _as_json(query: Mapping[str, Any]) -> str:
    return json.dumps(query, ensure_ascii=False, default=lambda value: value.isoformat())


def _clashes(db: duckdb.DuckDBPyConnection, spec: JobSpec) -> list[str]:
    """Verdicts that cannot hold beside each other. A term that several rows are corrected to is accepted once."""
    db.execute(
        f"DELETE FROM marked WHERE follows AND rowid NOT IN "
        f"(SELECT arg_min(rowid, follows) FROM marked WHERE verdict = '{ACCEPT}' GROUP BY lookup)"
    )
    value, answer = (verdicts.hashed(spec, verdicts.plain(spec, name)) for name in ("value", "prediction"))
    found = db.execute(
        f"""SELECT list(place ORDER BY line), any_value(query), min(line) AS first, 'two verdicts for one value' AS fault
            FROM marked GROUP BY lookup, {value} HAVING count(*) > 1
        UNION ALL
        SELECT list(place ORDER BY line), any_value(query), min(line), 'two corrected values'
            FROM marked WHERE verdict = '{CORRECT}' GROUP BY lookup HAVING count(DISTINCT prediction) > 1 AND count(DISTINCT value) > 1
        UNION ALL
        SELECT [c.place, r.place], c.query, c.line, 'one row gives the value that the other rejects'
            FROM (SELECT *, {answer} AS given FROM marked WHERE verdict = '{CORRECT}') c
            JOIN (SELECT *, {value} AS against FROM marked WHERE verdict <> '{ACCEPT}') r
            ON c.lookup = r.lookup AND c.given = r.against
        ORDER BY first"""
    ).fetchall()
    return [
        f"{' and '.join(places[:SHOWN])}: {fault} of {errors.shortened(query, LONGEST)}"
        for places, query, _, fault in found
    ]


def _refusal(path: Path, faults: Sequence[str], more: int) -> str:
    more += len(faults[SHOWN:])
    rest = f"; and {more:,} more" if more else ""
    return f"{path} is refused: {'; '.join(faults[:SHOWN])}{rest}. Nothing was taken in."


def _no_longer_proposed(db: duckdb.DuckDBPyConnection, spec: JobSpec) -> int:
    """Verdicts on what would not be published now, even if nobody had rejected it."""
    value = verdicts.hashed(spec, verdicts.plain(spec, "value"))
    proposed = (
        f"SELECT lookup, {verdicts.hashed(spec, 'prediction')} AS value FROM entries SEMI JOIN marked USING (lookup) "
        "UNION ALL SELECT lookup, value FROM refused"
    )
    sql = f"""
        SELECT count(DISTINCT line) FROM (SELECT line, lookup, {value} AS value FROM marked WHERE NOT follows) m
        JOIN ({proposed}) e USING (lookup) WHERE m.value IS NULL OR m.value = e.value"""
    return int(one(db, "SELECT count(*) FROM marked WHERE NOT follows")) - int(one(db, sql))
