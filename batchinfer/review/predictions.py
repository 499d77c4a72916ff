"""Predictions made elsewhere, or corrected by people: Parquet or CSV → the cache's table `imports`. They win over the model's.

All of it streams: the rows are checked, and wait in a scratch database until the last of them was found good. A value
that the job could never give, or a key that its list does not have, is refused unless the person says that it is meant.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from batchinfer.cache import imports
from batchinfer.cache.imports import ImportRow, as_prediction, stored_query_sql
from batchinfer.cache.store import Store
from batchinfer.core import keys
from batchinfer.core.columns import query_text
from batchinfer.core.database import TEXT_ROWS, one, one_integer, scratch_database
from batchinfer.core.home import JobData
from batchinfer.core.long_json import shortened_json
from batchinfer.core.long_texts import MOST_TEXT, LongTexts, oversized
from batchinfer.core.records import Info
from batchinfer.core.sql import quoted
from batchinfer.errors import FileProblem, InputError, NotFound, shortened
from batchinfer.inputs.csv_file import as_parquet
from batchinfer.inputs.files import find_files
from batchinfer.inputs.list_file import ListFile
from batchinfer.inputs.parquet import ROW, ListSource
from batchinfer.inputs.shortest import plain_values
from batchinfer.job.reader import Job
from batchinfer.planning.prepare import lock_job, quiet
from batchinfer.prompting.parse import Parser
from batchinfer.review.allowed import Allowance, FaultList, check_allowed
from batchinfer.review.listed import ListedKeys, keys_of_list
from batchinfer.review.rows import MAX_FAULTS
from batchinfer.review.sheet import LINE, marks

PREDICTION, SCORE, AUTHOR = "prediction", "score", "author"
# Columns that a batch gets beside the file's own: predictions as JSON; the line of a CSV, or the row of a Parquet file.
READY, NUMBER = "\x1fprediction", "\x1fnumber"


@dataclass(frozen=True, slots=True)
class ImportReport:
    """An import of predictions that was stored.

    import_id: its number.
    rows: how many it has.
    unfit: those whose value the job could never give.
    unlisted: those whose key the list does not have; None where there is no list yet.
    """

    import_id: int
    rows: int
    unfit: int = 0
    unlisted: int | None = 0

    def to_json(self) -> dict[str, int | None]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class UndoneImport:
    """An import that was undone.

    import_id: its number.
    rows: how many it had.
    """

    import_id: int
    rows: int

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def import_predictions(
    job: Job,
    data: JobData,
    path: Path,
    author: str | None,
    allow: Collection[Allowance] = (),
    list_path: Path | None = None,
    info: Info = quiet,
    *,
    rows_at_once: int = TEXT_ROWS,
) -> ImportReport:
    """Imports a file, all of it or nothing. Raises InputError.

    allow: what of it is meant although it is refused otherwise. list_path: the list in place of the job's own.
    """
    data.check_owner(job.path)
    with data.scratch() as scratch, scratch_database(scratch) as db, contextlib.closing(LongTexts(scratch)) as texts:
        listed = keys_of_list(db, texts, job, data, list_path, scratch, info)
        known = [*job.spec.input.key, PREDICTION, SCORE, AUTHOR]
        files = find_files(path, "give a Parquet or CSV file, or a folder or glob of them")
        incoming = _IncomingTable(db, texts, job, listed, author, rows_at_once)
        for file in files:
            incoming.add_file(file.path, dataclasses.replace(file, path=as_parquet(file.path, scratch, LINE, known)))
        incoming.check_whole(path, allow)
        # Not before the whole file was found good: a refused one makes nothing.
        with lock_job(data, f"batchinfer import {job.name}", info):
            data.bind(job.path)
            store = Store(data.cache)
            store.create_or_migrate()
            number = imports.store_import(
                store,
                db,
                "SELECT * EXCLUDE (row, number, lookup_hash), lookup_hash AS lookup FROM incoming",
                incoming.key_spec,
                texts,
            )
        return ImportReport(number, incoming.rows, incoming.unfit.count, incoming.unlisted)


def past_imports(data: JobData) -> list[ImportRow]:
    """All imports that were not undone, oldest first. Raises NotFound where the data folder has nothing of the job."""
    data.require()
    store = Store(data.cache)
    if not data.cache.exists():
        return []
    store.create_or_migrate()
    return imports.all_imports(store)


def undo_import(job: Job, data: JobData, number: int) -> UndoneImport:
    """Removes an import. Raises NotFound."""
    known = [row.import_id for row in past_imports(data)]
    if number not in known:
        there = ", ".join(map(str, known)) or "none"
        raise NotFound(f"The job {data.name} has no import {number} in {data.root}: it has {there}.")
    with data.run_lock(f"batchinfer import {job.name}"):
        return UndoneImport(number, imports.remove_import(Store(data.cache), number))


class _IncomingTable:
    """The rows of one import, in the table `incoming` of a scratch database, which it owns.

    rows: how many there are so far.
    unfit: values that the job could never give.
    unlisted: how many keys the list does not have; None without a list.
    """

    def __init__(
        self,
        db: duckdb.DuckDBPyConnection,
        texts: LongTexts,
        job: Job,
        listed: ListedKeys,
        author: str | None,
        rows_at_once: int,
    ) -> None:
        """listed: the list; without one, the first file's key is the job's. author: of rows that name none."""
        self._texts = texts
        self._db, self._spec, self._author, self._rows_at_once = db, job.spec.input, author, rows_at_once
        self._as_json, self._parser = job.spec.output.is_json, Parser(job.spec.output)
        self._key, self._forms, self._lookups = listed.key, listed.forms, listed.lookups_sql
        self.unfit, self.unlisted = FaultList(), None if listed.lookups_sql is None else 0
        self._files: list[tuple[int, Path, str]] = []  # the rows that came before, and how a place in it is called
        self.rows = 0
        db.execute(
            "CREATE TABLE incoming "
            "(row BIGINT, number BIGINT, lookup_hash BLOB, query VARCHAR, prediction VARCHAR, score DOUBLE, author VARCHAR)"
        )

    @property
    def key_spec(self) -> str:
        """Which key the lookups are made of."""
        return imports.key_of(self._key or [], self._spec.normalize, self._forms)

    def add_file(self, path: Path, parquet: ListFile) -> None:
        """Adds a file's rows. parquet: where they are, if `path` is not Parquet itself. Raises InputError."""
        source = self._opened(path, parquet)
        word = "row" if path == parquet.path else "line"
        self._files.append((self.rows, path, word))
        more, before = [PREDICTION] if path == parquet.path else [PREDICTION, LINE], 0
        try:
            for raw in parquet.batches([*source.kinds, *more], self._rows_at_once):
                batch = source.check(raw, before, path)
                rows = pa.array(range(before + 1, before + 1 + raw.num_rows), pa.int64())
                numbers = rows if path == parquet.path else raw.column(LINE)
                if batch.bad:
                    bad = batch.bad[0]
                    raise _refused(_problem(path, word, numbers[bad.row - before - 1].as_py(), bad.detail))
                good = batch.good.append_column(NUMBER, numbers)
                texts = self._predictions(raw.column(PREDICTION), good, source, path, word)
                _check_sizes(texts, good, path, word)
                self._check_fit(texts, good, source, path, word)
                self._insert(source, good, pa.array(texts, pa.string()))
                before += raw.num_rows
        except (pa.ArrowException, OSError, TypeError, ValueError, OverflowError) as exc:  # damaged, or of no use
            why = next(iter(str(exc).splitlines()), repr(exc))
            raise InputError(f"{path}: a value cannot be used: {why}. Nothing was imported.") from exc
        self.rows += before

    def _opened(self, path: Path, parquet: ListFile) -> ListSource:
        """The key, score and author of a file. Its keys must be of the job's kinds, or nobody would ever find them."""
        plain = self._spec.model_copy(update={"where": {}, "optional": []})
        key = ListSource([parquet], plain, []).key
        names = [name for name in parquet.schema().names if name != LINE]
        if marked := marks(names, plain.key):  # a plain import would take what people rejected as right
            raise InputError(
                f"{path} has the column {marked[0]}, so it is a review: reviews are imported one file at a time. "
                f"If it holds plain predictions, rename {marked[0]}. Nothing was imported."
            )
        if PREDICTION in plain.key:
            raise InputError(
                f"The key column {PREDICTION} has the name of the column that is imported: rename it in the list."
            )
        if names.count(PREDICTION) != 1:
            count = "more than one" if PREDICTION in names else "no"
            raise InputError(f"{path.name} has {count} column {PREDICTION}: it has {', '.join(names)}.")
        self._key = self._key or key
        for ours, theirs in zip(key, self._key, strict=True):
            if path == parquet.path and ours.kind != theirs.kind:  # every CSV cell is text
                raise InputError(
                    f"The column {ours.name} holds {ours.kind} values, but the job's list has {theirs.kind}: convert it."
                )
        more = [name for name in (SCORE, AUTHOR) if name in names and name not in plain.key]
        types = {SCORE: "number", AUTHOR: "string"} | {column.name: column.kind for column in self._key}
        return ListSource([parquet], plain.model_copy(update={"types": types, "optional": more}), more)

    def _predictions(self, column: pa.Array, good: pa.Table, source: ListSource, path: Path, word: str) -> list[str]:
        """The predictions of a batch as JSON. Raises InputError for the first that cannot be one."""
        try:
            return [as_prediction(answer, as_json=self._as_json) for answer in plain_values(column)]
        except ValueError:  # one of them; which, is found out value by value
            for number, value in enumerate(column):
                try:
                    as_prediction(value.as_py(), as_json=self._as_json)
                except ValueError as exc:
                    why = f"is not UTF-8: {exc}" if isinstance(exc, UnicodeDecodeError) else exc
                    query = _query_of(good, number, source)
                    said = f"The prediction of {query_text(query)} {why}."
                    raise _refused(_problem(path, word, good[NUMBER][number].as_py(), said)) from exc
            raise

    def _check_fit(self, texts: Sequence[str], good: pa.Table, source: ListSource, path: Path, word: str) -> None:
        """Notes the values that the job could never give."""
        nothing: dict[str, Any] = {}
        for number, text in enumerate(texts):
            row = _query_of(good, number, source) if self._parser.columns else nothing
            if fault := self._parser.fault_of(json.loads(text), row):
                query = _query_of(good, number, source)
                said = f"the prediction of {query_text(query)} {fault}"
                self.unfit.add(_problem(path, word, good[NUMBER][number].as_py(), said))

    def _insert(self, source: ListSource, good: pa.Table, predictions: pa.Array) -> None:
        own = source.kinds.keys() - {column.name for column in source.key}  # a key column may have either's name
        score, author = (quoted(name) if name in own else "NULL" for name in (SCORE, AUTHOR))
        short = pa.array([shortened_json(text, self._texts.keep) for text in predictions.to_pylist()], pa.string())
        batch = good.append_column(READY, short)
        for column in source.key:  # keys are hashed of whole texts, and stored as tokens
            batch = batch.append_column(f"{column.name}\x1fshort", self._texts.shortened(good[column.name]))
        self._db.register("batch", batch)
        self._db.execute(
            f"""INSERT INTO incoming BY NAME
            SELECT {self.rows} + {quoted(ROW)} AS row, {quoted(NUMBER)} AS number,
                   {keys.lookup_hash_sql(source.key, source.normalize)} AS lookup_hash,
                   {stored_query_sql(source.key, _short)} AS query, {quoted(READY)} AS prediction,
                   CASE WHEN isfinite({score}::DOUBLE) THEN {score} END AS score,
                   coalesce(nullif({author}, ''), ?) AS author
            FROM batch""",
            [self._author],
        )
        self._db.unregister("batch")

    def check_whole(self, path: Path, allow: Collection[Allowance]) -> None:
        """Raises InputError where there are no rows, two for one key, or what the person does not allow."""
        if not self.rows:
            raise InputError(f"{path} has no rows: there is nothing to import.")
        twice = self._db.execute(
            """WITH doubled AS (SELECT lookup_hash, min(row) AS first FROM incoming GROUP BY lookup_hash HAVING count(*) > 1)
            SELECT first, row, query FROM incoming JOIN doubled USING (lookup_hash) WHERE row > first ORDER BY row LIMIT 1"""
        ).fetchall()
        for first, second, query in twice:
            places = (" and " if len(self._files) == 1 else ", and ").join(map(self._named, (first, second)))
            raise InputError(
                f"{path} has two predictions for {query_text(json.loads(query))}: keep one of those in {places}. "
                "Nothing was imported."
            )
        strangers = self._strangers()
        check_allowed(path, {Allowance.VALUES: self.unfit, Allowance.KEYS: strangers}, allow)

    def _strangers(self) -> FaultList:
        """The keys that the list does not have."""
        faults = FaultList()
        if self._lookups is not None:
            beyond = f"FROM incoming ANTI JOIN {self._lookups} USING (lookup_hash)"
            rows = self._db.execute(f"SELECT row, query {beyond} ORDER BY row LIMIT {MAX_FAULTS}").fetchall()
            faults.first = [self._at(row, shortened(query_text(json.loads(query)))) for row, query in rows]
            self.unlisted = faults.count = one_integer(self._db, f"SELECT count(*) {beyond}")
        return faults

    def _at(self, row: int, said: str) -> FileProblem:
        """What is said of a row, with its place."""
        path, word = next((path, word) for before, path, word in reversed(self._files) if before < row)
        return _problem(path, word, one(self._db, "SELECT number FROM incoming WHERE row = ?", [row]), said)

    def _named(self, row: int) -> str:
        """The place of a row, with its file where there are several."""
        problem = self._at(row, "")
        return f"{Path(problem.file).name}, {problem.place}" if len(self._files) > 1 else problem.place


def _check_sizes(texts: Sequence[str], good: pa.Table, path: Path, word: str) -> None:
    """Raises InputError for the first prediction that is beyond what can be used."""
    for number, text in enumerate(texts):
        if len(text) > MOST_TEXT // 4 and (size := len(text.encode())) > MOST_TEXT + len(ROW):
            raise _refused(
                _problem(path, word, good[NUMBER][number].as_py(), f"The prediction holds {oversized(size)}.")
            )


def _query_of(good: pa.Table, number: int, source: ListSource) -> dict[str, Any]:
    """The key of one row of a batch."""
    query: dict[str, Any] = good.slice(number, 1).select([part.name for part in source.key]).to_pylist()[0]
    return query


def _problem(path: Path, word: str, number: Any, said: str) -> FileProblem:
    """word: line or row."""
    return FileProblem(str(path), said, **{word: int(number)})


def _short(name: str) -> str:
    """SQL for the column that holds a key column with tokens in place of long texts."""
    return quoted(f"{name}\x1fshort")


def _refused(problem: FileProblem) -> InputError:
    said = f"{problem.file}, {problem} Nothing was imported."
    return InputError(said).listing(said, [problem])
