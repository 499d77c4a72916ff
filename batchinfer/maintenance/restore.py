"""What versions have that a cache has lost: answers under their prompt keys, and what people gave.

Long texts are restored as the cache keeps them: as tokens, with the texts in `long_texts`.

| table    | columns                                                             |
| -------- | ------------------------------------------------------------------- |
| restored | those of the cache's table, of rows that it lacks; one at a time    |
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from batchinfer.cache.imports import stored_query_sql
from batchinfer.cache.pieces import insert_named
from batchinfer.cache.verdicts import PEOPLE
from batchinfer.core.database import one, one_integer
from batchinfer.core.duckdb_paths import parquet_rows
from batchinfer.core.home import CALIBRATION, JobData
from batchinfer.core.long_rows import has_long_texts
from batchinfer.core.long_texts import LongTexts
from batchinfer.core.records import Source
from batchinfer.core.sql import json_path, literal
from batchinfer.publish.predictions_file import loaded
from batchinfer.versions import folders
from batchinfer.versions.layout import PREDICTIONS, PROMPT_KEY, version_column
from batchinfer.versions.manifest import Manifest

AUTHOR = "batchinfer repair"


@dataclass(frozen=True, slots=True)
class VersionFile:
    """A version whose rows go into a new cache, which is attached as `fresh`.

    number: the version's.
    manifest: what it says of itself.
    rows: SQL for its rows in a scratch database, which holds tokens of long texts.
    texts: the long texts.
    """

    number: int
    manifest: Manifest
    rows: str
    texts: LongTexts

    @property
    def prediction(self) -> str:
        """SQL for a prediction as the cache has it."""
        return "prediction" if self.manifest.is_json else "to_json(prediction)::VARCHAR"

    @property
    def is_older(self) -> bool:
        """Whether it was asked of a model by a program that did not say which prompts its answers belong to."""
        asked = self.manifest.spec.sections.get("prompt", "null") != "null"
        return asked and self.manifest.run.fingerprint is None

    def names_prompts(self, db: duckdb.DuckDBPyConnection) -> bool:
        """Whether it says which prompt each answer belongs to; versions of older programs do not."""
        columns = [name for name, *_ in db.execute(f"DESCRIBE SELECT * FROM {self.rows}").fetchall()]
        key = [column.name.lower() for column in self.manifest.key]
        return self.manifest.run.fingerprint is not None and PROMPT_KEY in columns and PROMPT_KEY not in key


@contextlib.contextmanager
def opened(db: duckdb.DuckDBPyConnection, data: JobData, number: int, scratch: Path) -> Iterator[VersionFile]:
    """A version that is whole. Raises StoreError."""
    folder, texts = folders.folder_of(data, number), LongTexts(scratch)
    path, manifest = folder / PREDICTIONS, Manifest.read(folder)
    try:
        is_long = has_long_texts(path)
        rows = loaded(db, texts, path, "SELECT * FROM", is_json=manifest.is_json) if is_long else parquet_rows(path)
        yield VersionFile(number, manifest, rows, texts)
        if is_long:
            db.execute(f"DROP TABLE {rows}")
    finally:
        texts.close()


def restore_run(db: duckdb.DuckDBPyConnection, version: VersionFile) -> bool:
    """What the history lacks: that this version was published, and the run that made it. Whether that was lacking."""
    manifest = version.manifest
    made = manifest.created_at.replace(tzinfo=None)
    if not one(db, "SELECT count(*) FROM fresh.versions WHERE version = ?", [version.number]):
        facts = [version.number, manifest.run.run_id, manifest.rows, made]
        db.execute("INSERT INTO fresh.versions VALUES (?, ?, ?, ?)", facts)
    lacking = manifest.run.run_id and not one(
        db, "SELECT count(*) FROM fresh.runs WHERE run_id = ?", [manifest.run.run_id]
    )
    if lacking:
        sql = "INSERT INTO fresh.runs (run_id, status, finished_at, fingerprint) VALUES (?, 'done', ?, ?)"
        db.execute(sql, [manifest.run.run_id, made, manifest.run.fingerprint])
    return bool(lacking)


def restore_generations(db: duckdb.DuckDBPyConnection, version: VersionFile) -> int:
    """Adds the model's answers that the cache lacks; returns how many."""
    own = f"source = '{Source.MODEL}' AND NOT carried AND {PROMPT_KEY} IS NOT NULL"
    missing = f"SELECT min(lookup) FROM {version.rows} WHERE {own} AND {PROMPT_KEY} NOT IN (SELECT key FROM fresh.generations) "
    return _restore(
        db,
        version,
        "generations",
        f"""SELECT {PROMPT_KEY} AS key, {_fingerprint(version.manifest)} AS fingerprint, raw_text AS text, 'stop' AS finish_reason,
                   {_logprobs(version.manifest)} AS logprobs, ? AS parser, {version.prediction} AS prediction,
                   {_own_score(version.manifest)} AS score, scores, mass, model, run_id, generated_at AS created_at
            FROM {version.rows} WHERE lookup IN ({missing} GROUP BY {PROMPT_KEY})""",
        [version.manifest.run.parser],
    )


def _fingerprint(manifest: Manifest) -> str:
    """SQL for what an entry's question is known by; where two models were asked, the model that answered tells."""
    run = manifest.run
    models = () if run.cascade is None else (run.cascade.small, run.cascade.large)
    cases = " ".join(f"WHEN {literal(each.model)} THEN unhex('{each.fingerprint.hex()}')" for each in models)
    made_of = "NULL::BLOB" if run.fingerprint is None else f"unhex('{run.fingerprint.hex()}')"
    return f"CASE model {cases} ELSE {made_of} END" if cases else made_of


def _restore(
    db: duckdb.DuckDBPyConnection, version: VersionFile, table: str, sql: str, values: Sequence[object]
) -> int:
    """Puts what a query gives into a table of the new cache, and the long texts that it names; returns how many rows."""
    db.execute(f"CREATE TABLE restored AS {sql}", values)
    insert_named(db, "FROM restored", version.texts, "fresh")
    count = one_integer(db, f"INSERT INTO fresh.{table} BY NAME FROM restored")
    db.execute("DROP TABLE restored")
    return count


def _logprobs(manifest: Manifest) -> str:
    """SQL for what the scores of the choices were made of."""
    output = json.loads(manifest.spec.sections.get("output", "{}"))
    if output.get("type") == "likelihood":
        return f"[{_own_score(manifest)}]"
    choices = output.get("choices") or []
    parts = (f"(scores ->> {literal(json_path(choice))})::DOUBLE * coalesce(mass, 1)" for choice in choices)
    logs = (f"CASE WHEN {part} > 0 THEN ln({part}) ELSE '-inf'::DOUBLE END" for part in parts)
    return f"CASE WHEN scores IS NOT NULL THEN [{', '.join(logs)}] END" if choices else "NULL"


def _own_score(manifest: Manifest) -> str:
    """SQL for the model's own score of an entry, where the version has another one that verdicts calibrated."""
    if CALIBRATION not in manifest.files:
        return "score"
    output = json.loads(manifest.spec.sections.get("output", "{}"))
    if output.get("type") == "likelihood":
        return "TRY_CAST(prediction AS DOUBLE)"
    parts = [f"(scores ->> {literal(json_path(choice))})::DOUBLE" for choice in output.get("choices") or []]
    return f"greatest({', '.join(parts)})" if parts else "NULL::DOUBLE"


def restore_imports(db: duckdb.DuckDBPyConnection, version: VersionFile) -> int:
    """Adds what people gave and the cache lacks, as an import of its own; returns how many."""
    number = one(db, "SELECT coalesce(max(import_id), 0) + 1 FROM fresh.import_keys")
    query = stored_query_sql(version.manifest.key, version_column)
    added = _restore(
        db,
        version,
        "imports",
        f"""SELECT ?::INTEGER AS import_id, lookup, {query} AS query, {version.prediction} AS prediction, score,
                   ? AS author, generated_at AS created_at
            FROM {version.rows} WHERE source IN {PEOPLE} AND lookup NOT IN (
                SELECT lookup FROM fresh.imports WHERE lookup IS NOT NULL AND prediction IS NOT NULL)""",
        [number, AUTHOR],
    )
    if added:  # of which key its lookups are made is not said: they are made again
        db.execute("INSERT INTO fresh.import_keys VALUES (?, NULL)", [number])
    return added
