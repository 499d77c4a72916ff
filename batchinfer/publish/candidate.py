"""Publishes a candidate that the gate refused, byte for byte."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict

from batchinfer.cache.store import Store
from batchinfer.core.clock import iso, now
from batchinfer.core.columns import Column
from batchinfer.core.database import scratch_database
from batchinfer.core.files import os_errors
from batchinfer.core.home import JobData
from batchinfer.core.records import Info
from batchinfer.errors import NotFound, UsageError
from batchinfer.job.reader import Job
from batchinfer.publish import lookup_index
from batchinfer.publish.release import (
    install_version,
    next_number,
    resolve_current,
    resolve_parent,
    write_matcher,
)
from batchinfer.versions import folders, retention
from batchinfer.versions.layout import PREDICTIONS
from batchinfer.versions.manifest import Forced, Manifest


def release_candidate(
    job: Job,
    data: JobData,
    store: Store,
    name: str,
    *,
    key: Sequence[Column] | None,
    info: Info,
    forced: Forced | None,
) -> tuple[int | None, Manifest]:
    """Publishes exactly the bytes of a rejected candidate; its gate is not asked again.

    key: of the job's list, or None where there is no list; then its names alone must agree.
    Returns the version, or None if the current version has these very bytes, and the candidate's manifest.
    Raises NotFound, UsageError or StoreError.
    """
    known = folders.candidates(data)
    if name not in known:
        raise NotFound(f"The job {data.name} has no candidate {name}: it has {', '.join(known) or 'none'}.")
    place = data.rejected / name
    manifest = Manifest.read(place)
    _check_fits(job, name, manifest, key)
    failed = [check.name for check in manifest.gate.failed]
    if forced is None and failed:
        raise UsageError(
            f"The candidate {name} failed its gate ({', '.join(failed)}): --force --why TEXT publishes it anyway."
        )
    current = resolve_current(data, info)
    if current is not None and _equal(Manifest.read(folders.folder_of(data, current)), manifest):
        return None, manifest
    parent = resolve_parent(data, current, info)
    with folders.draft_folder(data) as draft:
        with os_errors(draft):
            shutil.copyfile(place / PREDICTIONS, draft / PREDICTIONS)
        with data.scratch() as scratch, scratch_database(scratch) as db:
            lookup_index.write_lookup(db, manifest.key, draft, job.name, is_json=manifest.is_json)
            held = write_matcher(manifest.key, draft, job.spec, info)
        version = next_number(data, store)
        released = manifest.derive(
            version=version, created_at=iso(now()), parent=parent, candidate=name,
            match=None if held is None else held.to_json(), forced=asdict(forced) if forced else None,
        )  # fmt: skip
        install_version(data, store, draft, version, released, bytes_of=manifest)
    retention.retain(data, job.spec.keep_versions)
    return version, manifest


def _check_fits(job: Job, name: str, manifest: Manifest, key: Sequence[Column] | None) -> None:
    """A candidate that is looked up or read otherwise than the job says now would break those who ask. Raises UsageError."""
    spec = job.spec
    wanted = list(spec.input.key) if key is None else [f"{column.name} ({column.kind})" for column in key]
    has = [column.name if key is None else f"{column.name} ({column.kind})" for column in manifest.key]
    for what, theirs, ours in (
        ("job", manifest.job, job.name),
        ("lookup key", ", ".join(has), ", ".join(wanted)),
        ("normalize", ", ".join(manifest.normalize) or "nothing", ", ".join(spec.input.normalize) or "nothing"),
        ("kind of prediction", manifest.prediction, spec.output.kind),
    ):
        if theirs != ours:
            raise UsageError(
                f"The candidate {name} does not fit the job as it is now: its {what} is {theirs}, the job's is {ours}. "
                "Publish from the cache instead."
            )


def _equal(current: Manifest, candidate: Manifest) -> bool:
    """Whether both are looked up alike, and hold the same bytes."""
    digests = [manifest.files[PREDICTIONS]["sha256"] for manifest in (current, candidate)]
    return digests[0] == digests[1] and (current.key, current.normalize) == (candidate.key, candidate.normalize)
