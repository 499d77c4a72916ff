"""Publishes a candidate that the gate refused, byte for byte."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from batchinfer.cache.schema import RunStatus
from batchinfer.cache.store import Store
from batchinfer.core.clock import iso, now
from batchinfer.core.columns import Column
from batchinfer.core.database import scratch_database
from batchinfer.core.files import os_errors
from batchinfer.core.home import CALIBRATION, JobData
from batchinfer.core.long_texts import LongTexts
from batchinfer.core.person import Person
from batchinfer.errors import NotFound, UsageError
from batchinfer.job.matched import alias_columns
from batchinfer.job.parts import is_part
from batchinfer.job.reader import Job
from batchinfer.job.spec import JobSpec
from batchinfer.publish.caution import Consent, check_not_empty, confirm_candidate_list, confirm_removal
from batchinfer.publish.changes import Compared, Entries, ServedChanges, compare_entries
from batchinfer.publish.release import (
    install_version,
    make_findable,
    next_number,
    pinned_instead,
    resolve_current,
    resolve_parent,
)
from batchinfer.versions import folders, retention
from batchinfer.versions.layout import NAMES, PREDICTIONS, STUDENT
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.retention import Removed


@dataclass(frozen=True, slots=True)
class CandidateReport:
    """A refused candidate that was published as it is.

    job: the name of its job.
    candidate: its name.
    version: that it became; None where the current one has these very bytes.
    same_as: the current version, if it has them.
    list_differs: that its list is another one than the served version's, as a sentence.
    manifest: of the candidate.
    changes: of what was served.
    pinned: the version that is served in place of the current one.
    removed: old versions and candidates that were removed afterwards.
    """

    job: str
    candidate: str
    version: int | None
    manifest: Manifest
    changes: ServedChanges
    pinned: int | None
    removed: Removed = field(default_factory=Removed)
    same_as: int | None = None
    list_differs: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "job": self.job, "status": RunStatus.DONE, "candidate": self.candidate, "version": self.version,
            "entries": self.manifest.rows, "carried": self.manifest.carried, "unchanged": self.version is None,
            "same_as": self.same_as, "list_differs": self.list_differs,
            "pinned": self.pinned, "changes": self.changes.to_json(),
            "versions_removed": self.removed.to_json(), "gate": [check.to_json() for check in self.manifest.gate.checks],
        }  # fmt: skip


def release_candidate(
    job: Job,
    data: JobData,
    store: Store,
    name: str,
    *,
    key: Sequence[Column] | None,
    person: Person,
    consent: Consent,
) -> CandidateReport:
    """Publishes exactly the bytes of a rejected candidate; its gate is not asked again.

    key: of the job's list, or None where there is no list; then its names alone must agree.
    Raises NotFound, UsageError or StoreError.
    """
    info, forced = person.info, consent.forced
    known = folders.candidates(data)
    if name not in known:
        raise NotFound(
            f"The job {data.name} in {data.root} has no candidate {name}: it has {', '.join(known) or 'none'}."
        )
    place = data.rejected / name
    manifest = Manifest.read(place)
    _check_fits(job, name, manifest, key)
    failed = [check.name for check in manifest.gate.failed]
    if forced is None and failed:
        raise UsageError(
            f"The candidate {name} failed its gate ({', '.join(failed)})",
            fix=f"batchinfer diff {data.name} current {name} shows what it would change"
            + (f", batchinfer failures {data.name} the rows without an answer" if store.failure_reasons() else "")
            + ". To publish it anyway: --force --why TEXT.",
        )
    current = resolve_current(data, info)
    parent = resolve_parent(data, current, info)
    if current is not None and _equal(Manifest.read(folders.folder_of(data, current)), manifest):
        changes = ServedChanges() if parent == current else _compared(data, place, manifest, parent).changes
        return CandidateReport(job.name, name, None, manifest, changes, pinned_instead(data, info), same_as=current)
    check_not_empty(manifest.rows, consent)
    differs = confirm_candidate_list(job, data, manifest, name, person, yes=consent.yes)
    with folders.draft_folder(data) as draft:
        _copy_files(place, draft, manifest)
        compared = _compared(data, draft, manifest, parent)
        confirm_removal(compared.changes, compared.served, person, yes=consent.yes)
        with data.scratch() as scratch, scratch_database(scratch) as db:
            terms = make_findable(db, manifest.key, draft, job.spec, info)
        version = next_number(data, store)
        released = manifest.derive(
            spec=_matched_spec(manifest, job),
            version=version, created_at=iso(now()), parent=parent, candidate=name,
            match=None if terms is None else terms.to_json(), forced=asdict(forced) if forced else None,
        )  # fmt: skip
        install_version(data, store, draft, version, released, bytes_of=manifest)
    removed = retention.retain(data, job.spec.keep, info)
    pinned = pinned_instead(data, info)
    return CandidateReport(
        job.name, name, version, manifest, compared.changes, pinned, removed, list_differs=differs
    )  # fmt: skip


def _copy_files(place: Path, draft: Path, manifest: Manifest) -> None:
    """What is published as it is; the other files are made of it."""
    with os_errors(draft):
        for file in {PREDICTIONS, NAMES, CALIBRATION, STUDENT} & manifest.files.keys():
            shutil.copyfile(place / file, draft / file)


def _matched_spec(manifest: Manifest, job: Job) -> dict[str, Any]:
    """A candidate's job file, with sections of the job as it is now: match, by which its matcher is made, and alerts.

    Who makes the matcher again, without an entry, goes by it.
    """
    ours = job.spec.model_dump(mode="json", by_alias=True)
    return {**manifest.document["spec"], "match": ours["match"], "alerts": ours["alerts"]}


def _compared(data: JobData, candidate: Path, manifest: Manifest, parent: int | None) -> Compared:
    """A candidate's folder against the version that is served."""
    served = None if parent is None else folders.folder_of(data, parent)
    with data.scratch() as scratch, scratch_database(scratch) as db, contextlib.closing(LongTexts(scratch)) as texts:
        return compare_entries(db, texts, Entries.of_version(db, texts, candidate, manifest.key), served)


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
        ("set of columns with aliases", *_aliases(manifest, spec)),
        ("set of names of every language", *_own_names(manifest, spec)),
    ):
        if theirs != ours:
            raise UsageError(
                f"The candidate {name} does not fit the job as it is now: its {what} is {theirs}, the job's is {ours}. "
                "Publish from the cache instead."
            )


def _aliases(manifest: Manifest, spec: JobSpec) -> tuple[str, str]:
    """The columns of the list whose texts a candidate has, and those that the job's matcher wants; it may want none."""
    ours = sorted(alias_columns(spec.match, spec.input.key))
    match = json.loads(manifest.spec.sections.get("match", "null")) or {}
    key = [column.name for column in manifest.key]
    theirs = sorted(name for name in match.get("everywhere", []) if not is_part(name, key)) if ours else []
    return ", ".join(theirs) or "nothing", ", ".join(ours) or "nothing"


def _own_names(manifest: Manifest, spec: JobSpec) -> tuple[str, str]:
    """The key columns whose texts hold in every language, of a candidate and of the job; the job may want none."""
    ours = sorted({*spec.match.everywhere} & {*spec.input.key}) if spec.match else []
    match = json.loads(manifest.spec.sections.get("match", "null")) or {}
    theirs = sorted({*match.get("everywhere", [])} & {column.name for column in manifest.key}) if ours else []
    return ", ".join(theirs) or "nothing", ", ".join(ours) or "nothing"


def _equal(current: Manifest, candidate: Manifest) -> bool:
    """Whether both are looked up alike, and hold the same bytes."""
    files = [[manifest.files.get(name) for name in (PREDICTIONS, NAMES, STUDENT)] for manifest in (current, candidate)]
    return files[0] == files[1] and (current.key, current.normalize) == (candidate.key, candidate.normalize)
