"""What versions have that a cache has lost: answers under their prompt keys, and what people gave."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import duckdb

from batchinfer.cache.imports import stored_query_sql
from batchinfer.cache.verdicts import PEOPLE
from batchinfer.core.database import one
from batchinfer.core.duckdb_paths import parquet_rows
from batchinfer.core.records import Source
from batchinfer.core.sql import json_path, literal
from batchinfer.versions.layout import PREDICTIONS, PROMPT_KEY, version_column
from batchinfer.versions.manifest import Manifest

AUTHOR = "batchinfer repair"


@dataclass(frozen=True, slots=True)
class VersionFile:
    """A version whose rows go into a new cache, which is attached as `fresh`.

    number: the version's.
    folder: where it is.
    manifest: what it says of itself.
    """

    number: int
    folder: Path
    manifest: Manifest

    @property
    def rows(self) -> str:
        return parquet_rows(self.folder / PREDICTIONS)

    @property
    def prediction(self) -> str:
        """SQL for a prediction as the cache has it."""
        return "prediction" if self.manifest.is_json else "to_json(prediction)::VARCHAR"

    def names_prompts(self, db: duckdb.DuckDBPyConnection) -> bool:
        """Whether it says which prompt each answer belongs to; versions of older programs do not."""
        columns = [name for name, *_ in db.execute(f"DESCRIBE SELECT * FROM {self.rows}").fetchall()]
        key = [column.name.lower() for column in self.manifest.key]
        return self.manifest.run.fingerprint is not None and PROMPT_KEY in columns and PROMPT_KEY not in key


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
    return int(
        one(
            db,
            f"""INSERT INTO fresh.generations BY NAME
            SELECT {PROMPT_KEY} AS key, ?::BLOB AS fingerprint, raw_text AS text, 'stop' AS finish_reason,
                   {_logprobs(version.manifest)} AS logprobs, ? AS parser, {version.prediction} AS prediction,
                   score, scores, mass, model, run_id, generated_at AS created_at
            FROM {version.rows} WHERE lookup IN ({missing} GROUP BY {PROMPT_KEY})""",
            [version.manifest.run.fingerprint, version.manifest.run.parser],
        )
    )


def _logprobs(manifest: Manifest) -> str:
    """SQL for what the scores of the choices were made of."""
    output = json.loads(manifest.spec.sections.get("output", "{}"))
    if output.get("type") == "likelihood":
        return "[score]"
    choices = output.get("choices") or []
    parts = (f"(scores ->> {literal(json_path(choice))})::DOUBLE * coalesce(mass, 1)" for choice in choices)
    logs = (f"CASE WHEN {part} > 0 THEN ln({part}) ELSE '-inf'::DOUBLE END" for part in parts)
    return f"CASE WHEN scores IS NOT NULL THEN [{', '.join(logs)}] END" if choices else "NULL"


def restore_imports(db: duckdb.DuckDBPyConnection, version: VersionFile) -> int:
    """Adds what people gave and the cache lacks, as an import of its own; returns how many."""
    number = one(db, "SELECT coalesce(max(import_id), 0) + 1 FROM fresh.import_keys")
    query = stored_query_sql(version.manifest.key, version_column)
    added = int(
        one(
            db,
            f"""INSERT INTO fresh.imports BY NAME
            SELECT ?::INTEGER AS import_id, lookup, {query} AS query, {version.prediction} AS prediction, score,
                   ? AS author, generated_at AS created_at
            FROM {version.rows} WHERE source IN {PEOPLE} AND lookup NOT IN (
                SELECT lookup FROM fresh.imports WHERE lookup IS NOT NULL AND prediction IS NOT NULL)""",
            [number, AUTHOR],
        )
    )
    if added:  # of which key its lookups are made is not said: they are made again
        db.execute("INSERT INTO fresh.import_keys VALUES (?, NULL)", [number])
    return added
