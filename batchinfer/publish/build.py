"""What a version says of itself, written last; and the last look at it before it is published."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchinfer.core.clock import iso, now
from batchinfer.core.columns import query_text
from batchinfer.core.database import TEXT_ROWS, query_engine
from batchinfer.core.duckdb_paths import parquet_rows
from batchinfer.core.files import os_errors
from batchinfer.core.long_rows import has_long_texts, read_batches
from batchinfer.core.records import Check
from batchinfer.core.version import __version__
from batchinfer.engines.models import ModelIdentity
from batchinfer.errors import StoreError
from batchinfer.inputs.place import ListFacts
from batchinfer.inputs.upstream import Upstream
from batchinfer.publish.candidate import Candidate
from batchinfer.versions.answers_cost import VersionCost
from batchinfer.versions.layout import FORMAT, MANIFEST, PREDICTIONS, version_column
from batchinfer.versions.manifest import Forced, Manifest
from batchinfer.versions.published_run import PublishedCascade
from batchinfer.versions.snapshot import Snapshot

if TYPE_CHECKING:
    from batchinfer.publish.student_report import VersionStudent

SAMPLE = 100  # entries that are looked up again
NOT_PUBLISHED = "Nothing was published: check the disk, then run again."


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Of what a version is made; kept in the manifest.

    run_id: the newest run, whose answers it holds; 0 before the first.
    model: None for a job without one.
    upstream: the version that the list was made of, if the job is chained.
    input: where the list came from.
    made_of: the files that it was made of.
    fingerprint: of the question, in hexadecimal digits; None for a job without one.
    parser: how its answers are read; None for a job without a question.
    cascade: how two models share the answers; None in a job with one.
    """

    run_id: int
    model: ModelIdentity | None
    upstream: Upstream | None
    input: str
    made_of: ListFacts
    fingerprint: str | None
    parser: str | None
    cascade: PublishedCascade | None = None

    def to_json(self) -> dict[str, Any]:
        plain = asdict(replace(self, cascade=None))
        del plain["cascade"]
        del plain["made_of"]
        plain["list"] = self.made_of.to_json()
        return plain if self.cascade is None else plain | {"cascade": self.cascade.to_json()}


def write_manifest(target: Path, manifest: Manifest) -> None:
    """manifest.json, last: it means that the version is complete."""
    with os_errors(target):
        files = {path.name: _file_facts(path) for path in sorted(target.iterdir()) if path.name != MANIFEST}
        (target / MANIFEST).write_bytes(manifest.derive(files=files).to_bytes())


def manifest_of(
    candidate: Candidate,
    checks: Sequence[Check],
    *,
    version: int | None,
    run: RunFacts,
    parent: int | None,
    forced: Forced | None,
    student: VersionStudent | None = None,
    cost: VersionCost | None = None,
) -> Manifest:
    """The manifest of a new version, without its files yet. version: None for a rejected candidate."""
    spec, source = candidate.spec, candidate.source
    passed = all(check.passed for check in checks)
    document = {
        "format": FORMAT,
        "job": spec.name,
        "version": version,
        "created_at": iso(now()),
        "rows": candidate.contents.entries,
        "carried": candidate.contents.carried,
        "key": [
            {"name": column.name, "kind": column.kind} | ({"zoned": True} if column.zoned else {})
            for column in source.key
        ],
        "normalize": list(spec.input.normalize),
        "prediction": spec.output.kind,
        "unicode": unicodedata.unidata_version,
        "gate": {"status": "passed" if passed else "failed", "checks": [check.to_json() for check in checks]},
        "forced": None if forced is None else asdict(forced),
        "parent": parent,
        "run": run.to_json(),
        "spec": spec.model_dump(mode="json", by_alias=True),
        "made_by": f"batchinfer {__version__}",
        "files": {},
    }
    if student is not None:
        document["student"] = student.to_json()
    if cost is not None:
        document["cost"] = cost.to_json()
    return Manifest.of(document)


def check(folder: Path) -> None:
    """Reopens what was written: every checksum, the count, and a sample of entries. Raises StoreError."""
    with Snapshot(folder) as version:
        version.verify()
        terms = version.manifest.match
        if version.matches and (terms is None or len(version.matcher) != terms.terms):
            raise StoreError(f"{folder}: the matcher does not hold the terms that were written. {NOT_PUBLISHED}")
        _ = version.student  # whoever serves it will have it read
        for values in _sample(folder, version.manifest):
            query = {column.name: value for column, value in zip(version.manifest.key, values, strict=True)}
            if version.get(query) is None:
                raise StoreError(f"{folder}: the entry {query_text(query)} cannot be looked up again. {NOT_PUBLISHED}")


def _sample(folder: Path, manifest: Manifest) -> Iterator[tuple[Any, ...]]:
    """The keys of some entries."""
    path, every = folder / PREDICTIONS, max(manifest.rows // SAMPLE, 1)
    names = ", ".join(version_column(column.name) for column in manifest.key)
    with query_engine() as db:
        if not has_long_texts(path):
            yield from db.execute(f"SELECT {names} FROM {parquet_rows(path)} USING SAMPLE {SAMPLE} ROWS").fetchall()
            return
        number = 0
        for batch in read_batches(db, path, lambda rows: f"SELECT {names} FROM {rows}", TEXT_ROWS):
            for row in range(-number % every, batch.num_rows, every):
                yield tuple(column[row].as_py() for column in batch.columns)
            number += batch.num_rows


def _file_facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
