"""Makes a published version of any size without a model or a cache: what the benchmarks of serving look up."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb

from batchinfer.core import keys
from batchinfer.core.columns import Column
from batchinfer.core.home import JobData
from batchinfer.core.sql import literal
from batchinfer.publish import build, lookup_index
from batchinfer.versions import folders, pointers
from batchinfer.versions.layout import FORMAT, PREDICTIONS, STUDENT
from batchinfer.versions.manifest import Manifest

JOB = "bench"
KEY = [Column("id", "string")]


def key_of(number: int) -> str:
    """The lookup key of an entry: 13 characters."""
    return f"k{number:012d}"


def make(root: Path, entries: int, *, job: str = JOB, version: int = 1, memory: str = "2GB",
         student: bytes | None = None) -> JobData:  # fmt: skip
    """Publishes a version of `entries` entries, with bodies of about 250 bytes. Entry i says in which version it was made.

    student: its student.npz, which is asked on misses.
    """
    data = JobData(root, job)
    draft = data.versions / ".making"
    draft.mkdir(parents=True)
    with duckdb.connect() as db:
        db.execute(f"SET memory_limit = '{memory}'")
        db.execute(f"SET temp_directory = {literal(str(root / 'spill'))}")
        db.execute(
            f"""COPY (
            SELECT id, 'prediction ' || i || ' of version {version}' AS prediction, 'raw text' AS raw_text,
                   '{{"Negative":0.25,"Positive":0.75}}' AS scores, 0.75 AS score, 0.5 AS mass, 'model' AS source,
                   'org/some-model-8B-Instruct' AS model, 1 AS run_id, TIMESTAMP '2026-01-05 03:00:00' AS generated_at,
                   false AS carried, {keys.row_hash_sql(b"", KEY)} AS lookup
            FROM (SELECT i, printf('k%012d', i) AS id FROM range({entries}) t(i)) ORDER BY lookup)
            TO {literal(str(draft / PREDICTIONS))} (FORMAT parquet, COMPRESSION zstd)"""
        )
        lookup_index.write_lookup(db, KEY, draft, job, is_json=False)
    serve = {"max_age": "60s"}
    if student is not None:
        (draft / STUDENT).write_bytes(student)
        serve["on_miss"] = "student"
    document = {
        "format": FORMAT, "job": job, "version": version, "created_at": "2026-01-05T03:00:00Z", "rows": entries, "carried": 0,
        "key": [{"name": "id", "kind": "string"}], "normalize": [], "prediction": "string", "spec": {"serve": serve},
        "gate": {"status": "passed", "checks": []}, "files": {},
    }  # fmt: skip
    build.write_manifest(draft, Manifest.of(document))
    folders.move_into_place(data, draft, version)
    pointers.make_current(data, version)
    return data


def body(data: JobData, number: int) -> bytes:
    """What publishing made for an entry."""
    with pointers.open_served(data) as snapshot:
        found = snapshot.get({"id": key_of(number)})
    assert found is not None
    assert json.loads(found)["query"] == {"id": key_of(number)}
    return found
