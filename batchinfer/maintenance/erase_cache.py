"""One entry out of the cache: which generations, imports and failures are its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa

from batchinfer.cache import pieces
from batchinfer.cache.questions import ATTACHED
from batchinfer.cache.rewrite import GoneRows, settle
from batchinfer.cache.schema import SENTENCES, RunStatus
from batchinfer.cache.store import Store
from batchinfer.core import keys
from batchinfer.core.columns import Column
from batchinfer.core.database import LIST_ROWS, one_integer, record_batches
from batchinfer.core.long_texts import short_text, whole
from batchinfer.errors import InputError
from batchinfer.inputs.list_file import ListFile
from batchinfer.inputs.parquet import Batch, ListSource
from batchinfer.job.spec import InputSpec
from batchinfer.maintenance.entry import Entry, GenerationRef, blobs
from batchinfer.versions.manifest import plain_checks

REFERENCES = pa.schema({"run_id": pa.int32(), "created_at": pa.timestamp("us"), "text": pa.string()})


@dataclass(frozen=True, slots=True)
class PromptId:
    """A prompt of some run.

    fingerprint: of what the run asked.
    prompt_key: as its generation has it.
    """

    fingerprint: bytes
    prompt_key: bytes


@dataclass(frozen=True, slots=True)
class PastQuestion:
    """What some run asked.

    fingerprint: of all but the rows.
    columns: of its template, in the order in which they are hashed.
    """

    fingerprint: bytes
    columns: tuple[Column, ...]

    def prompt(self, values: Mapping[str, Any]) -> PromptId | None:
        """The prompt for these values, where they are all that the template needs."""
        try:
            row = [values[column.name] for column in self.columns]
            return PromptId(self.fingerprint, keys.row_hash(self.fingerprint, row, self.columns))
        except (KeyError, TypeError, ValueError, AttributeError):  # other columns, or values of another kind
            return None


@dataclass(frozen=True, slots=True)
class ErasedRows:
    """Rows of the cache that were the entry's own.

    generations: answers to prompts that only it asks.
    imports: predictions and verdicts of people.
    failures: of it, and of those prompts.
    """

    generations: int
    imports: int
    failures: int


class ListSearch:
    """The job's list, as each question read it: which rows ask which prompt."""

    def __init__(
        self, files: Sequence[ListFile], spec: InputSpec, questions: Sequence[PastQuestion], entry: Entry
    ) -> None:
        self._files, self._entry = files, entry
        # A row may have been asked before it was left out.
        self._spec = spec.model_copy(update={"where": {}, "optional": []})
        self._groups: dict[tuple[Column, ...], list[PastQuestion]] = {(): []}
        for question in questions:
            self._groups.setdefault(question.columns, []).append(question)

    def prompts(self, db: duckdb.DuckDBPyConnection) -> tuple[bool, set[PromptId]]:
        """Whether the entry is in the list, and the prompts that its rows ask. Raises InputError."""
        found: set[PromptId] = set()
        listed = False
        for columns, group in self._groups.items():
            made = ["true", *(keys.row_hash_sql(question.fingerprint, columns) for question in group)]
            for batch, own in self._batches(columns):
                for table in (batch.good, batch.lost):
                    rows = _of_table(db, table, f"SELECT DISTINCT {', '.join(made)} FROM batch WHERE {own}")
                    listed = listed or bool(rows)
                    for _, *row in rows:
                        found |= {PromptId(q.fingerprint, bytes(made)) for q, made in zip(group, row, strict=True)}
        return listed, found

    def needed(self, db: duckdb.DuckDBPyConnection, prompts: set[PromptId]) -> set[PromptId]:
        """Those of these prompts that other rows of the list ask, too."""
        found: set[PromptId] = set()
        for columns, group in self._groups.items():
            sought = {q.fingerprint: [p.prompt_key for p in prompts if p.fingerprint == q.fingerprint] for q in group}
            sought = {fingerprint: own_keys for fingerprint, own_keys in sought.items() if own_keys}
            for batch, own in self._batches(columns) if sought else ():
                for fingerprint, own_keys in sought.items():
                    prompt_key = keys.row_hash_sql(fingerprint, columns)
                    sql = f"SELECT DISTINCT {prompt_key} FROM batch WHERE NOT {own} AND {prompt_key} IN ({blobs(own_keys)})"
                    found |= {PromptId(fingerprint, bytes(made)) for (made,) in _of_table(db, batch.good, sql)}
        return found

    def _batches(self, columns: tuple[Column, ...]) -> Iterator[tuple[Batch, str]]:
        """The list, its columns of these kinds; with SQL that is true for the entry's rows."""
        kinds = {column.name: column.kind for column in columns}
        spec = self._spec.model_copy(update={"types": self._spec.types | kinds})
        try:
            source = ListSource(self._files, spec, list(kinds))
        except InputError:
            if columns:  # a question that this list cannot ask any more
                return
            raise
        lookup_hash = self._entry.lookup_hash_by(source.key, source.normalize)
        if lookup_hash is None:
            return
        hashed = [
            Column(keys.normal_column(column.name), "string")
            if column.kind == "string" and source.normalize
            else column
            for column in source.key
        ]
        for batch in source.batches():
            yield batch, f"({keys.row_hash_sql(b'', hashed)} = unhex('{lookup_hash.hex()}'))"


def _of_table(db: duckdb.DuckDBPyConnection, table: pa.Table, sql: str) -> list[tuple[Any, ...]]:
    db.register("batch", table)
    rows = db.execute(sql).fetchall()
    db.unregister("batch")
    return rows


def past_questions(db: duckdb.DuckDBPyConnection) -> list[PastQuestion]:
    """All that runs ever asked, by the cache, which is attached."""
    rows = db.execute(f"SELECT fingerprint, any_value(parts) FROM {ATTACHED} GROUP BY fingerprint").fetchall()
    kinds = {bytes(fingerprint): (json.loads(parts or "null") or {}).get("columns") for fingerprint, parts in rows}
    return [
        PastQuestion(fingerprint, tuple(Column(name, columns[name]) for name in sorted(columns)))
        for fingerprint, columns in kinds.items()
        if columns
    ]


def prompts_of(db: duckdb.DuckDBPyConnection, generations: Iterable[GenerationRef]) -> set[PromptId]:
    """The prompts of generations that versions name. The cache is attached."""
    rows = [{**asdict(generation), "text": short_text(generation.text)} for generation in generations]
    db.register("generation_refs", pa.Table.from_pylist(rows, REFERENCES))
    sql = "SELECT fingerprint, key FROM cache.generations SEMI JOIN generation_refs USING (run_id, created_at, text)"
    found = {PromptId(bytes(fingerprint), bytes(made)) for fingerprint, made in db.execute(sql).fetchall()}
    db.unregister("generation_refs")
    return found


def count_answers(db: duckdb.DuckDBPyConnection, prompts: set[PromptId]) -> int:
    """How many of these prompts the attached cache has an answer to."""
    return one_integer(db, f"SELECT count(*) FROM cache.generations WHERE key IN ({_keys(prompts)})")


def _keys(prompts: set[PromptId]) -> str:
    return blobs(prompt.prompt_key for prompt in prompts) or "NULL"


def mark(store: Store, db: duckdb.DuckDBPyConnection, entry: Entry, prompts: set[PromptId]) -> ErasedRows:
    """Marks in a scratch database what is to go: what is the entry's own. prompts: those that only the entry asks."""
    own = _keys(prompts)
    settle(store)
    gone = GoneRows(db)
    with store.attached(db):
        gone.mark("generations", f"SELECT rowid FROM cache.generations WHERE key IN ({own})")
        gone.mark("failures", f"SELECT rowid FROM cache.failures WHERE key IN ({own})")
        gone.mark("imports", f"SELECT rowid FROM cache.imports WHERE lookup = {blobs([entry.lookup_hash])}")
        for name in ("failures", "imports"):
            found = _rows_of_entry(db, name, entry)
            db.register("found", pa.table({"id": pa.array(found, pa.int64())}))
            gone.mark(name, "FROM found")
            db.unregister("found")
    counts = gone.counts()
    return ErasedRows(*(counts.get(name, 0) for name in ("generations", "imports", "failures")))


def mark_exchanged(store: Store, db: duckdb.DuckDBPyConnection) -> int:
    """Marks answers to rows whose terms an audit exchanged, beside what `mark` marked; returns how many.

    Any of them may have been made of the entry: what was asked is stored nowhere.
    """
    gone = GoneRows(db, more=True)
    before = gone.counts().get("generations", 0)
    with store.attached(db):
        runs = (
            f"SELECT run_id FROM cache.runs WHERE status = '{RunStatus.AUDIT}' "
            f"AND json_extract_string(report, '$.arm') IS DISTINCT FROM '{SENTENCES}'"
        )
        for name in ("generations", "failures"):
            gone.mark(name, f"SELECT rowid FROM cache.{name} WHERE run_id IN ({runs})")
    return gone.counts().get("generations", 0) - before


def _rows_of_entry(db: duckdb.DuckDBPyConnection, table: str, entry: Entry, rows_at_once: int = LIST_ROWS) -> list[int]:
    """The rows whose stored query is the entry's, however it was spelled."""
    found, read = list[int](), partial(pieces.stored_text, db, table="cache.long_texts")
    with record_batches(db, f"SELECT rowid, query FROM cache.{table}", rows_at_once) as reader:
        for batch in reader:
            rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
            found += [row for row, query in rows if entry.is_query(query and whole(query, read))]
    return found


def without_examples(report: dict[str, Any]) -> dict[str, Any]:
    """A run's report, as the cache has it, that quotes neither rows, as its gate and its changes do, nor terms."""
    plain = dict(report)
    if plain.get("gate"):
        plain["gate"] = plain_checks(plain["gate"])
    if plain.get("changes"):
        plain["changes"] = {name: fact for name, fact in plain["changes"].items() if name != "examples"}
    if plain.get("match"):
        plain["match"] = {name: fact for name, fact in plain["match"].items() if name not in ("examples", "says")}
    return plain
