"""The tables of the cache file: their migrations, and the rows that go into them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

import duckdb
import pyarrow as pa

from batchinfer.core.clock import now, shown
from batchinfer.core.database import one_integer
from batchinfer.core.records import Answer, Failure, Generation, Prediction, Provenance
from batchinfer.core.sql import literal
from batchinfer.errors import StoreError

MIGRATIONS: list[tuple[str, str]] = [
    (
        "first tables",
        """
        CREATE TABLE generations (
            key BLOB, fingerprint BLOB, text VARCHAR, finish_reason VARCHAR, prompt_tokens INTEGER, cached_tokens INTEGER,
            output_tokens INTEGER, logprobs DOUBLE[], parser VARCHAR, prediction VARCHAR, score DOUBLE, scores VARCHAR,
            mass DOUBLE, model VARCHAR, run_id INTEGER, created_at TIMESTAMP);
        CREATE TABLE failures (
            key BLOB, fingerprint BLOB, row BIGINT, query VARCHAR, stage VARCHAR, reason VARCHAR, detail VARCHAR,
            parser VARCHAR, run_id INTEGER, created_at TIMESTAMP);
        CREATE TABLE imports (
            import_id INTEGER, lookup BLOB, query VARCHAR, prediction VARCHAR, score DOUBLE, author VARCHAR, created_at TIMESTAMP);
        CREATE TABLE runs (
            run_id INTEGER, status VARCHAR, started_at TIMESTAMP, finished_at TIMESTAMP, fingerprint BLOB, parts VARCHAR, report VARCHAR);
        CREATE TABLE versions (version INTEGER, run_id INTEGER, rows BIGINT, created_at TIMESTAMP);
        """,
    ),
    (
        "verdicts by people",
        """
        ALTER TABLE imports ADD COLUMN verdict VARCHAR;
        ALTER TABLE imports ADD COLUMN value VARCHAR;
        """,
    ),
    (
        "numbers of imports, and of which key their lookups are made",
        """
        ALTER TABLE imports ADD COLUMN follows BOOLEAN;
        CREATE TABLE import_keys (import_id INTEGER, made_of VARCHAR);
        INSERT INTO import_keys SELECT DISTINCT import_id, NULL FROM imports;
        """,
    ),
    (
        "the sample that a verdict was asked for",
        """
        ALTER TABLE imports ADD COLUMN sample VARCHAR;
        """,
    ),
    ("long texts in pieces", "CREATE TABLE long_texts (digest BLOB, part INTEGER, text VARCHAR);"),
    (
        "questions of runs that asked more than one",
        "CREATE TABLE run_questions (run_id INTEGER, fingerprint BLOB, parts VARCHAR);",
    ),
    ("long lists of JSON among long texts", "SELECT 1 FROM long_texts LIMIT 1;"),
    (
        "how long chunks took",
        """
        CREATE TABLE chunks (
            run_id INTEGER, model VARCHAR, machine VARCHAR, options VARCHAR, rows INTEGER, prompt_tokens BIGINT,
            cached_tokens BIGINT, output_tokens BIGINT, seconds DOUBLE);
        """,
    ),
]


class RunStatus(StrEnum):
    """How a run stands, or how it ended.

    REJECTED: by the gate. DECLINED: a person said no to what it asked.
    EVAL: it asked an arm of a comparison, AUDIT: rows that were made for an audit; nothing was to be published.
    KILLED: it could not say so itself, and a later one found it running. UNKNOWN: what a newer program wrote.
    """

    RUNNING = "running"
    DONE = "done"
    REJECTED = "rejected"
    DECLINED = "declined"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    EVAL = "eval"
    AUDIT = "audit"
    KILLED = "killed"
    UNKNOWN = "unknown"

    @property
    def is_aside(self) -> bool:
        """Whether it only asked for an evaluation, so that it says nothing of the job's list."""
        return self in ASIDE

    @classmethod
    def _missing_(cls, value: object) -> RunStatus:  # noqa: ARG003
        """What a newer program may have written."""
        return cls.UNKNOWN


SENTENCES = "sentences"  # the name in the report of a run for an audit that asked no row of the list
ASIDE = (RunStatus.EVAL, RunStatus.AUDIT)
ASIDE_SQL = f"({', '.join(map(literal, ASIDE))})"
# Failures of an earlier prompt or model stay stored, since one may go back to it, but nobody need look at them.
# Rows that were made for an audit are none of the list.
CURRENT_FAILURES = (
    "(FROM failures WHERE stage = 'input' "
    f"OR fingerprint = coalesce((SELECT fingerprint FROM runs WHERE status NOT IN {ASIDE_SQL} ORDER BY run_id DESC LIMIT 1), "
    f"fingerprint) AND coalesce(run_id, 0) NOT IN (SELECT run_id FROM runs WHERE status = '{RunStatus.AUDIT}')) AS current_failures"
)


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as the cache has it.

    run_id: its number.
    status: how it stands, or how it ended.
    started_at: when, RFC 3339, UTC.
    finished_at: the same of its end.
    report: what it printed with --json; empty for one that was killed. Older runs lack newer fields.
    """

    run_id: int
    status: RunStatus
    started_at: str | None
    finished_at: str | None
    report: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {
            **self.report, "run_id": self.run_id, "status": self.status, "started_at": self.started_at,
            "finished_at": self.finished_at,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class FailureRow:
    """A row or prompt without a prediction.

    stage: where it failed, as in `Failure`.
    reason: why, in a word.
    detail: why, in a sentence.
    query: its lookup key.
    row: its number in the list, if it is a bad row.
    run_id: the run that it failed in.
    at: when, RFC 3339, UTC.
    text: what the model wrote, where it could not be read; None where it wrote nothing.
    """

    stage: str
    reason: str
    detail: str
    query: Mapping[str, Any] | None
    row: int | None
    run_id: int | None
    at: str | None
    text: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class MostCached:
    """The question that most of the cache's generations answer.

    fingerprint: its hash.
    parts: what the fingerprint is made of.
    count: how many generations answer it.
    """

    fingerprint: bytes
    parts: dict[str, Any]
    count: int


GENERATION_SCHEMA = pa.schema(
    {
        "key": pa.binary(), "fingerprint": pa.binary(), "text": pa.string(), "finish_reason": pa.string(), "prompt_tokens": pa.int32(),
        "cached_tokens": pa.int32(), "output_tokens": pa.int32(), "logprobs": pa.list_(pa.float64()), "parser": pa.string(),
        "prediction": pa.string(), "score": pa.float64(), "scores": pa.string(), "mass": pa.float64(), "model": pa.string(),
        "run_id": pa.int32(), "created_at": pa.timestamp("us"),
    }
)  # fmt: skip
FAILURE_SCHEMA = pa.schema(
    {
        "key": pa.binary(), "fingerprint": pa.binary(), "row": pa.int64(), "query": pa.string(), "stage": pa.string(),
        "reason": pa.string(), "detail": pa.string(), "parser": pa.string(), "run_id": pa.int32(), "created_at": pa.timestamp("us"),
    }
)  # fmt: skip


GENERATED, SHARED = ([field.name for field in fields(record)] for record in (Generation, Provenance))


def note_used(db: duckdb.DuckDBPyConnection, run_id: int | None, used: Mapping[str, Any]) -> None:
    """Writes what a run used and made so far, if anybody counts it, so that it is known of one that is killed, too."""
    if used:
        db.execute("UPDATE runs SET report = ? WHERE run_id = ?", [json.dumps(used), run_id])


def generation_row(answer: Answer, provenance: Provenance) -> dict[str, Any]:
    """A row of `generations`."""
    row = _plain(answer.generation, GENERATED) | _plain(provenance, SHARED) | {"created_at": now()}
    row["key"] = row.pop("prompt_key")
    if isinstance(answer.result, Prediction):
        scores = answer.result.scores
        row |= {
            "prediction": json.dumps(answer.result.value, ensure_ascii=False),
            "score": answer.result.score,
            "scores": None if scores is None else json.dumps(scores, ensure_ascii=False),
            "mass": answer.result.choice_mass,
        }
    return row


def _plain(record: Any, names: Sequence[str]) -> dict[str, Any]:
    """A record as a mapping: `asdict` copies all that is in it, which for hundreds of rows costs more than to store them."""
    return {name: getattr(record, name) for name in names}


def failure_row(failure: Failure, query: Mapping[str, Any] | None, provenance: Provenance) -> dict[str, Any]:
    """A row of `failures`. query: the lookup key of the row that failed."""
    return {
        "key": failure.prompt_key, "fingerprint": provenance.fingerprint, "row": None,
        "query": json.dumps(query, ensure_ascii=False, default=shown),
        "stage": failure.stage, "reason": failure.reason, "detail": failure.detail,
        "parser": provenance.parser, "run_id": provenance.run_id, "created_at": now(),
    }  # fmt: skip


def applied_migrations(db: duckdb.DuckDBPyConnection) -> int:
    """How many migrations the file has seen. Raises StoreError for a file that is not ours, or newer."""
    tables = {
        name
        for (name,) in db.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()"
        ).fetchall()
    }
    if "migrations" not in tables:
        if tables:
            raise StoreError("cache.duckdb in the data folder is some other DuckDB file: move it away.")
        return 0
    number = one_integer(db, "SELECT count(*) FROM migrations")
    if number > len(MIGRATIONS):
        raise StoreError(
            f"The cache was written by a newer batchinfer (its format is {number}, this one knows {len(MIGRATIONS)}): "
            "install the newer version; the cache is left as it is."
        )
    return number
