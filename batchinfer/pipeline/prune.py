"""Answers that nothing uses any more, out of the cache: an earlier question's, and those of rows that left the list.

| table       | columns                                                                                 |
| ----------- | --------------------------------------------------------------------------------------- |
| in_versions | run_id, created_at, hash (of the text) of the answers that versions and candidates hold |
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from batchinfer.cache.pieces import digests_sql
from batchinfer.cache.rewrite import GoneRows, remove_cache_drafts, rewrite, settle
from batchinfer.cache.schema import ASIDE_SQL, RunStatus
from batchinfer.cache.workspace import Workspace
from batchinfer.core.database import duckdb_errors, one, one_integer
from batchinfer.core.home import JobData
from batchinfer.core.person import Person, ask
from batchinfer.core.sizes import size_text
from batchinfer.errors import counted
from batchinfer.job.reader import Job
from batchinfer.planning.prepare import Options, Prepared, prepare, prepare_to_write
from batchinfer.publish.predictions_file import version_rows
from batchinfer.versions import folders
from batchinfer.versions.manifest import Manifest

SIZE = "octet_length(key) + strlen(coalesce(text, '')) + strlen(coalesce(prediction, '')) + strlen(coalesce(scores, '')) + 64"


@dataclass(frozen=True, slots=True)
class UnusedRows:
    """What of a cache nothing uses.

    generations: answers of the model.
    failures: of prompts that are asked no more.
    compared: those of the answers that a comparison of prompts asked for: the same comparison would ask them again.
    """

    generations: int
    failures: int
    compared: int = 0

    def __bool__(self) -> bool:
        return bool(self.generations or self.failures)

    def __str__(self) -> str:
        compared = (
            f" ({self.compared:,} of them to other prompts that batchinfer eval compared)" if self.compared else ""
        )
        return f"{counted(self.generations, 'answer')}{compared} and {counted(self.failures, 'failure')}"


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What a removal came to, or would come to.

    job: its name.
    rows: that nothing uses.
    left: answers that stay.
    bytes: of disk space; an estimate before they are removed.
    removed: whether they were.
    """

    job: str
    rows: UnusedRows
    left: int
    bytes: int
    removed: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "job": self.job, "generations": self.rows.generations, "failures": self.rows.failures, "compared": self.rows.compared,
            "left": self.left,
            "bytes": self.bytes, "removed": self.removed,
        }  # fmt: skip


def prune(
    job: Job, data: JobData, person: Person, *, instead: Path | None = None, dry_run: bool = False, yes: bool = False
) -> PruneReport:
    """Removes what nothing uses: neither the job file's question with its list, nor a version or candidate.

    Answers that evaluations asked of the job file's question stay, too, so that an audit or a comparison finds them again.

    instead: the list in place of the job's. dry_run: only say how much. yes: do not ask. Raises InputError where the list
    cannot be read, NotConfirmed, NotFound, StoreError or Busy; then, or killed anywhere, the cache stays as it was.
    """
    data.require()
    options = Options(input=instead)
    if dry_run:
        with prepare(job, data, options, person.info) as prepared:
            return _unused(prepared)
    with data.run_lock(f"batchinfer prune {data.name}"), prepare_to_write(job, data, options, person.info) as prepared:
        remove_cache_drafts(prepared.store)
        settle(prepared.store)
        found = _unused(prepared)
        if not found.rows:
            return found
        said = f"This removes {found.rows} of the cache of {data.name}, about {size_text(found.bytes)}, and cannot be undone."
        ask(person, said, "pass --yes to remove them.", yes=yes)
        before = data.cache.stat().st_size
        rewrite(prepared.store, prepared.workspace.db)
        return PruneReport(data.name, found.rows, found.left, max(0, before - data.cache.stat().st_size), removed=True)


def _unused(prepared: Prepared) -> PruneReport:
    """Marks what would go, and counts it."""
    gone = GoneRows(prepared.workspace.db)
    _read_versions_answers(prepared.workspace, prepared.data)
    with prepared.store.attached(prepared.workspace.db):
        _mark(prepared, gone)
        return _report(prepared, gone)


def _read_versions_answers(workspace: Workspace, data: JobData) -> None:
    """Makes `in_versions`, of versions and candidates. Raises StoreError for one that cannot be read."""
    db = workspace.db
    db.execute("CREATE OR REPLACE TABLE in_versions (run_id INTEGER, created_at TIMESTAMP, hash UHUGEINT)")
    versions = [folders.folder_of(data, number) for number in folders.numbers(data)]
    for folder in [*versions, *(data.rejected / name for name in folders.candidates(data))]:
        with duckdb_errors(folder):
            rows = version_rows(db, workspace.texts, folder, Manifest.read(folder).key)
            db.execute(f"INSERT INTO in_versions SELECT run_id, generated_at, md5_number(raw_text) FROM ({rows})")


def _mark(prepared: Prepared, gone: GoneRows) -> None:
    asked = f"SELECT prompt_key FROM {prepared.query_list.all_prompts_sql}"
    gone.mark(
        "generations",
        f"SELECT id FROM (SELECT rowid AS id, run_id, created_at, md5_number(text) AS hash FROM cache.generations "
        f"WHERE key NOT IN ({asked}) AND NOT {_evaluated(prepared)}) ANTI JOIN in_versions USING (run_id, created_at, hash)",
    )
    gone.mark(
        "failures",
        f"SELECT rowid FROM cache.failures WHERE stage <> 'input' AND key NOT IN ({asked}) AND NOT {_evaluated(prepared)}",
    )


def _evaluated(prepared: Prepared) -> str:
    """SQL that is true for answers of the job file's question that an evaluation asked for, to rows that are not in the list."""
    if prepared.question is None:
        return "false"
    runs = f"SELECT run_id FROM cache.runs WHERE status IN {ASIDE_SQL}"
    return f"(fingerprint = unhex('{prepared.question.fingerprint.hex()}') AND run_id IN ({runs}))"


def _report(prepared: Prepared, gone: GoneRows) -> PruneReport:
    db, counts = prepared.workspace.db, gone.counts()
    compared = (
        f"SELECT count(*) FROM cache.generations WHERE rowid IN ({gone.rows_of('generations')}) "
        f"AND run_id IN (SELECT run_id FROM cache.runs WHERE status = '{RunStatus.EVAL}')"
    )
    rows = UnusedRows(counts.get("generations", 0), counts.get("failures", 0), one_integer(db, compared))
    total, size = _sizes(db, "true")
    _, unused = _sizes(db, f"rowid IN ({gone.rows_of('generations')})")
    estimate = prepared.store.path.stat().st_size * unused // size if size else 0
    return PruneReport(prepared.data.name, rows, total - rows.generations, estimate, removed=False)


def _sizes(db: duckdb.DuckDBPyConnection, which: str) -> tuple[int, int]:
    """How many generations there are, and how long their values are together."""
    sql = f"SELECT count(*), coalesce(sum({SIZE}), 0)::BIGINT FROM cache.generations WHERE {which}"
    [(count, size)] = db.execute(sql).fetchall()
    named = f"SELECT unhex(unnest({digests_sql(['text', 'prediction'])})) FROM cache.generations WHERE {which}"
    long = one(db, f"SELECT coalesce(sum(strlen(text)), 0) FROM cache.long_texts WHERE digest IN ({named})")
    return count, size + int(long)
