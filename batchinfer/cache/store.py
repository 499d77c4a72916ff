"""The DuckDB file of a job: generations, failures, imports, runs, versions. Nothing that serves ever opens it.

DuckDB allows one read-write process or many read-only ones, so the file is opened for each piece of
work and closed again, and both sides try again for a moment. The big tables have no index: a commit
costs the same however large they grow (docs/performance.md).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from batchinfer.cache import pieces
from batchinfer.cache.chunks import ChunkNote
from batchinfer.cache.patience import PATIENCE_SECONDS, patiently
from batchinfer.cache.questions import ASKED
from batchinfer.cache.schema import (
    ASIDE_SQL,
    CURRENT_FAILURES,
    FAILURE_SCHEMA,
    GENERATION_SCHEMA,
    MIGRATIONS,
    FailureRow,
    MostCached,
    RunRow,
    RunStatus,
    applied_migrations,
    failure_row,
    generation_row,
)
from batchinfer.core.clock import iso, now
from batchinfer.core.database import database_file, detach, duckdb_errors, one, one_integer, transaction
from batchinfer.core.duckdb_paths import database_place
from batchinfer.core.files import os_errors
from batchinfer.core.keys import canonical_json
from batchinfer.core.long_texts import LongTexts, named
from batchinfer.core.memory import batch_bytes
from batchinfer.core.records import Answer, Failure, Generation, Prediction, Provenance
from batchinfer.core.sql import literal

CHUNK_SECONDS = 10.0  # of reading texts again
Read = Callable[[Generation, Mapping[str, Any]], Prediction | Failure]
Parts = Mapping[str, Any] | None
Queries = Callable[[Sequence[bytes]], Mapping[bytes, Mapping[str, Any]]]


class Store:
    """The cache file of one job. Each method opens it, does one thing in one transaction, and closes it."""

    def __init__(self, path: Path, *, patience: float | None = None) -> None:
        """patience: seconds to wait while another process has the file open; PATIENCE_SECONDS if not said."""
        self.path, self._patience = path, PATIENCE_SECONDS if patience is None else patience

    @contextlib.contextmanager
    def open(self, *, write: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection inside a transaction; rolled back if anything is raised. Raises StoreError or Busy."""
        with duckdb_errors(self.path, job=self.path.parent.name), contextlib.ExitStack() as stack:
            connection = patiently(
                self.path,
                self._patience,
                lambda: stack.enter_context(database_file(self.path, read_only=not write)),
            )
            with transaction(connection):
                yield connection

    @contextlib.contextmanager
    def attached(self, db: duckdb.DuckDBPyConnection, *, write: bool = False) -> Iterator[None]:
        """The cache as the schema `cache` of another database, within whose memory it stays. Raises StoreError or Busy."""
        job, mode = self.path.parent.name, "" if write else " (READ_ONLY)"
        with duckdb_errors(self.path, job=job), database_place(self.path, read_only=not write) as place:
            patiently(self.path, self._patience, lambda: db.execute(f"ATTACH {literal(place)} AS cache{mode}"))
            try:
                yield
            finally:
                detach(db, "cache")

    def create_or_migrate(self) -> None:
        """Creates the file, or brings an older one up to date. Raises StoreError for a newer one."""
        if not self.path.exists():
            self._create()
        with self.open() as db:
            if applied_migrations(db) == len(MIGRATIONS):
                return
        self.migrate()

    def for_reading(self, scratch: Path) -> Store:
        """The cache for who only reads: up to date, and not made where there is none.

        An empty one in a scratch folder then, and a copy there of an older one that cannot be written.
        """
        if not self.path.exists():
            empty = Store(scratch / self.path.name)
            empty.migrate()
            return empty
        with self.open() as db:
            is_current = applied_migrations(db) == len(MIGRATIONS)
        if is_current:
            return self
        if not os.access(self.path.parent, os.W_OK):
            return self.copied(scratch)
        self.migrate()
        return self

    def copied(self, scratch: Path) -> Store:
        """A copy of this cache in a scratch folder, up to date, which can be written."""
        copy = Store(scratch / self.path.name)
        with os_errors(copy.path):
            shutil.copyfile(self.path, copy.path)
        copy.migrate()
        return copy

    def _create(self) -> None:
        """Makes the file beside its place and puts it there whole: DuckDB could not open one that was left half made."""
        draft = Store(self.path.with_name(f".{self.path.name}.{os.getpid()}"))
        try:
            draft.migrate()
            with draft.open(write=True) as db:
                db.execute("CHECKPOINT")  # the log does not go along
            # Another process may have been faster: its file is as good.
            with os_errors(self.path), contextlib.suppress(FileExistsError):
                os.link(draft.path, self.path)
        finally:
            for path in (draft.path, draft.path.with_name(f"{draft.path.name}.wal")):
                path.unlink(missing_ok=True)

    def migrate(self) -> None:
        """Makes the tables, or brings them up to date: of a draft, which nobody else has."""
        with self.open(write=True) as db:
            db.execute("CREATE TABLE IF NOT EXISTS migrations (number INTEGER, name VARCHAR, applied_at TIMESTAMP)")
            for number, (name, statements) in list(enumerate(MIGRATIONS, 1))[applied_migrations(db) :]:
                db.execute(statements)
                pieces.shorten_stored(db, statements)
                db.execute("INSERT INTO migrations VALUES (?, ?, ?)", [number, name, now()])

    def start_run(self, fingerprint: bytes, parts: Parts, status: RunStatus = RunStatus.RUNNING) -> int:
        """Records that a run began; returns its number."""
        with self.open(write=True) as db:
            run_id = one_integer(db, "SELECT coalesce(max(run_id), 0) + 1 FROM runs")
            # A run that was killed cannot say so itself.
            db.execute("UPDATE runs SET status = ? WHERE status = ?", [RunStatus.KILLED, RunStatus.RUNNING])
            db.execute(
                "INSERT INTO runs VALUES (?, ?, ?, NULL, ?, ?, NULL)",
                [run_id, status, now(), fingerprint, canonical_json(parts)],
            )
        return run_id

    def finish_run(self, run_id: int, status: RunStatus, report: Mapping[str, Any]) -> None:
        with self.open(write=True) as db:
            db.execute(
                "UPDATE runs SET status = ?, finished_at = ?, report = ? WHERE run_id = ?",
                [status, now(), json.dumps(report), run_id],
            )

    def add_version(self, version: int, run_id: int, rows: int) -> None:
        """Records a published version. run_id: the newest run then, whose answers it holds."""
        with self.open(write=True) as db:
            db.execute("INSERT INTO versions VALUES (?, ?, ?, ?)", [version, run_id, rows, now()])

    def runs(self) -> list[RunRow]:
        """All runs, newest first."""
        with self.open() as db:
            sql = "SELECT run_id, status, started_at, finished_at, report FROM runs ORDER BY run_id DESC"
            rows = db.execute(sql).fetchall()
        return [
            RunRow(run_id, RunStatus(status), iso(started), iso(finished), json.loads(report or "{}"))
            for run_id, status, started, finished, report in rows
        ]

    def is_empty(self) -> bool:
        """Whether it holds neither a run nor an import."""
        with self.open() as db:
            return not one(db, "SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM imports)")

    def last_run_id(self) -> int:
        """The number of the newest run; 0 before the first."""
        with self.open() as db:
            return one_integer(db, "SELECT coalesce(max(run_id), 0) FROM runs")

    def most_cached(self) -> MostCached | None:
        """The question that most generations answer, if any do. One that was only compared with others does not count."""
        with self.open() as db:
            rows = db.execute(
                f"SELECT fingerprint, count(*), (SELECT first(parts) FROM {ASKED} r WHERE r.fingerprint = g.fingerprint) "
                f"FROM generations g SEMI JOIN (FROM {ASKED} WHERE status NOT IN {ASIDE_SQL}) USING (fingerprint) GROUP BY fingerprint "
                "ORDER BY 2 DESC, max(created_at) DESC LIMIT 1"
            ).fetchall()
        return MostCached(bytes(rows[0][0]), json.loads(rows[0][2] or "{}"), rows[0][1]) if rows else None

    def commit(
        self, answers: Sequence[Answer], failures: Sequence[tuple[Failure, Mapping[str, Any]]], provenance: Provenance, *,
        replace: bool, note: ChunkNote | None = None,
    ) -> None:  # fmt: skip
        """One chunk, in one transaction.

        answers: generations with what was read from them.
        failures: those, and prompts that got no generation, each with its query.
        provenance: the same for all.
        replace: keys may be there already (a refresh).
        note: what else is known of it.
        """
        new = pieces.NewTexts()
        generations = [new.short(generation_row(answer, provenance)) for answer in answers]
        failed = pa.Table.from_pylist(
            [new.short(failure_row(failure, row, provenance)) for failure, row in failures], FAILURE_SCHEMA
        )
        with self.open(write=True) as db:
            new.store(db)
            db.register("chunk", pa.Table.from_pylist(generations, GENERATION_SCHEMA))
            db.register("failed", failed)
            if replace:
                db.execute("DELETE FROM generations WHERE key IN (SELECT key FROM chunk)")
                db.execute("DELETE FROM failures WHERE key IN (SELECT key FROM chunk UNION ALL SELECT key FROM failed)")
            db.execute("INSERT INTO generations BY NAME SELECT * FROM chunk")
            db.execute("INSERT INTO failures BY NAME SELECT * FROM failed")
            if note is not None:
                note.write(db, provenance.run_id)

    def has_long_texts(self) -> bool:
        """Whether there may be tokens in its tables."""
        with self.open() as db:
            return bool(one(db, "SELECT count(*) FROM (FROM long_texts LIMIT 1)"))

    def long_texts(self) -> Iterator[tuple[bytes, bytes]]:
        """Digests and texts of all long texts, in UTF-8."""
        with self.open() as db:
            yield from pieces.all_texts(db)

    def replace_bad_rows(self, bad: pa.Table, texts: LongTexts) -> None:
        """The bad rows of the list as it is now, as `query_list.BAD_ROWS` has them, in place of an earlier run's."""
        with self.open(write=True) as db:
            pieces.insert(db, "long_texts", named(bad["query"].to_pylist()) if texts.any else [], texts.read)
            db.register("bad", bad)
            db.execute("DELETE FROM failures WHERE stage = 'input'")
            db.execute("INSERT INTO failures BY NAME SELECT *, 'input' AS stage, ? AS created_at FROM bad", [now()])

    def reread(self, read: Read, provenance: Provenance, queries: Queries, values: Queries | None = None) -> int:
        """Reads stored texts again that another parser judged; returns how many.

        read: the job's parser.
        queries: says which rows ask the prompts of these keys, for those that fail now.
        values: what their templates are filled with, for a parser that looks at it. A text whose prompt is not in the list
            then waits, unread, until it is.
        """
        total, last, most = 0, b"", batch_bytes()
        while True:
            with self.open(write=True) as db:
                rows = db.execute(
                    "SELECT key, text, finish_reason, prompt_tokens, cached_tokens, output_tokens, logprobs FROM generations "
                    "WHERE fingerprint = ? AND parser <> ? AND key > ? ORDER BY key LIMIT 50000",
                    [provenance.fingerprint, provenance.parser, last],
                ).fetchall()
                if not rows:
                    return total
                prompt_keys = [bytes(row[0]) for row in rows]
                filled = {prompt_key: {} for prompt_key in prompt_keys} if values is None else values(prompt_keys)
                began, size, answers = time.monotonic(), 0, list[Answer]()
                for row in rows:
                    text = _generation((row[0], pieces.whole_stored(db, row[1]), *row[2:]))
                    last, size = text.prompt_key, size + len(text.text)
                    if last in filled:
                        answers.append(Answer(text, read(text, filled[last])))
                    # What is read is kept, whatever comes next.
                    if time.monotonic() - began > CHUNK_SECONDS or size > most:
                        break
                total += len(answers)
                self._store_again(db, answers, provenance, queries)

    def _store_again(
        self,
        db: duckdb.DuckDBPyConnection,
        answers: list[Answer],
        provenance: Provenance,
        queries: Queries,
    ) -> None:
        failures = [answer.result for answer in answers if isinstance(answer.result, Failure)]
        old = db.execute("SELECT key, query FROM failures WHERE stage = 'parse'").fetchall()
        query_of = {bytes(prompt_key): json.loads(query) for prompt_key, query in old}
        unknown = [failure.prompt_key for failure in failures if failure.prompt_key not in query_of]
        query_of |= queries([prompt_key for prompt_key in unknown if prompt_key])
        new = pieces.NewTexts()
        failed = [
            new.short(failure_row(failure, query_of.get(failure.prompt_key or b""), provenance)) for failure in failures
        ]
        rejudged = [new.short(generation_row(answer, provenance)) for answer in answers]
        new.store(db)
        db.register("rejudged", pa.Table.from_pylist(rejudged, GENERATION_SCHEMA))
        db.register("failed", pa.Table.from_pylist(failed, FAILURE_SCHEMA))
        db.execute(
            "UPDATE generations SET parser = j.parser, prediction = j.prediction, score = j.score, scores = j.scores, mass = j.mass "
            "FROM rejudged j WHERE generations.key = j.key"
        )
        db.execute("DELETE FROM failures WHERE stage = 'parse' AND key IN (SELECT key FROM rejudged)")
        db.execute("INSERT INTO failures BY NAME SELECT * FROM failed")

    def failures(self, limit: int | None = None) -> list[FailureRow]:
        """The failures of what is asked now, newest first."""
        with self.open() as db:
            rows = db.execute(
                f"""WITH newest AS (FROM {CURRENT_FAILURES} ORDER BY created_at DESC, row LIMIT ?)
                SELECT n.stage, n.reason, n.detail, n.query, n.row, n.run_id, n.created_at,
                       CASE WHEN n.stage = 'parse' AND g.logprobs IS NULL THEN g.text END
                FROM newest n LEFT JOIN generations g ON g.key = n.key ORDER BY n.created_at DESC, n.row""",
                [limit if limit is not None else 2**62],
            ).fetchall()
            rows = [
                (*row[:3], pieces.whole_stored(db, row[3]), *row[4:7], pieces.whole_stored(db, row[7])) for row in rows
            ]
        return [
            FailureRow(stage, reason, detail, json.loads(query or "null"), row, run, iso(at), text)
            for stage, reason, detail, query, row, run, at, text in rows
        ]

    def failure_reasons(self) -> dict[str, int]:
        """How often each reason is that of a failure of what is asked now."""
        with self.open() as db:
            sql = f"SELECT reason, count(*) FROM {CURRENT_FAILURES} GROUP BY reason"
            return dict(db.execute(sql).fetchall())


def _generation(row: Sequence[Any]) -> Generation:
    prompt_key, text, finish_reason, prompt_tokens, cached_tokens, output_tokens, logprobs = row
    scores = None if logprobs is None else tuple(logprobs)
    return Generation(bytes(prompt_key), text, finish_reason, prompt_tokens, cached_tokens, output_tokens, scores)
