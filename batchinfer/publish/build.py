"""Cache → one version's folder: predictions.parquet, then, once the gate is passed, lookup.lmdb and the manifest."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb

from batchinfer.core.clock import iso, now
from batchinfer.core.database import COPY_OPTIONS
from batchinfer.core.files import os_errors
from batchinfer.core.sql import literal
from batchinfer.core.version import __version__
from batchinfer.errors import StoreError
from batchinfer.inputs.query_list import Plan, listed
from batchinfer.job.reader import Job
from batchinfer.publish.contents import Contents
from batchinfer.publish.gate import Check, Figures
from batchinfer.versions.layout import FORMAT, MANIFEST, PREDICTIONS, VALUE_COLUMNS, version_column
from batchinfer.versions.manifest import Forced, Manifest
from batchinfer.versions.snapshot import Snapshot


def write_predictions(plan: Plan, target: Path) -> None:
    """The copy of record as Parquet, in the order of the lookup hash."""
    names = ", ".join(f"{listed(column.name)} AS {version_column(column.name)}" for column in plan.source.key)
    plan.db.execute(
        f"COPY (SELECT {names}, {VALUE_COLUMNS}, lookup FROM entries ORDER BY lookup) TO {literal(str(target))} "
        f"{COPY_OPTIONS}"
    )


def write_manifest(target: Path, manifest: Manifest) -> None:
    """manifest.json, last: it means that the version is complete."""
    with os_errors(target):
        files = {path.name: _file_facts(path) for path in sorted(target.iterdir()) if path.name != MANIFEST}
        (target / MANIFEST).write_bytes(manifest.derive(files=files).to_bytes())


def manifest_of(
    job: Job,
    plan: Plan,
    contents: Contents,
    checks: Sequence[Check],
    *,
    version: int | None,
    run: Mapping[str, Any],
    parent: int | None,
    forced: Forced | None = None,
) -> Manifest:
    """The manifest of a new version, but for its files. version: None for a rejected candidate."""
    failed = [check.name for check in checks if not check.passed]
    document = {
        "format": FORMAT,
        "job": job.name,
        "version": version,
        "created_at": iso(now()),
        "rows": contents.entries,
        "carried": contents.carried,
        "key": [{"name": column.name, "kind": column.kind} for column in plan.source.key],
        "normalize": list(job.spec.input.normalize),
        "prediction": job.spec.output.kind,
        "unicode": unicodedata.unidata_version,
        "gate": {"status": "failed" if failed else "passed", "checks": [asdict(check) for check in checks]},
        "forced": None if forced is None else asdict(forced),
        "parent": parent,
        "run": dict(run),
        "spec": job.spec.model_dump(mode="json", by_alias=True),
        "made_by": f"batchinfer {__version__}",
        "files": {},
    }
    return Manifest.of(document)


def check(folder: Path) -> None:
    """Reopens what was written: every checksum, the count, and a sample of entries. Raises StoreError."""
    with Snapshot(folder) as version:
        version.verify()
        if version.matches and len(version.matcher) != (version.manifest.match or {}).get("terms"):
            raise StoreError(f"{folder}: the matcher does not hold the terms that were written; nothing is published.")
        with duckdb.connect() as db:
            names = ", ".join(version_column(column.name) for column in version.manifest.key)
            sample = db.execute(
                f"SELECT {names} FROM read_parquet({literal(str(folder / PREDICTIONS))}) USING SAMPLE 100 ROWS"
            ).fetchall()
        for values in sample:
            query = {column.name: value for column, value in zip(version.manifest.key, values, strict=True)}
            if version.get(query) is None:
                raise StoreError(
                    f"{folder}: the entry {query} cannot be looked up again; the version is not published."
                )


def figures(plan: Plan, contents: Contents, failed: int, *, golden: int = 0, right: int = 0) -> Figures:
    """What the gate looks at. golden: rows whose answer is known; right: those answered so."""
    counts = plan.counts
    return Figures(
        keys=counts.lookups, covered=contents.covered, asked=counts.unique + counts.bad, failed=failed + counts.bad,
        entries=contents.entries, carried=contents.carried, served=contents.served, missing=contents.missing,
        changed=contents.changed, to_review=contents.to_review, unseen=contents.unseen, golden=golden, right=right,
    )  # fmt: skip


def _file_facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
