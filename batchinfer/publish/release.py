"""Cache → gate → version → CURRENT, in the order that lets nothing unvalidated be served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from batchinfer.cache.store import Store
from batchinfer.cache.workspace import Workspace
from batchinfer.core.columns import Column
from batchinfer.core.database import one_integer
from batchinfer.core.files import os_errors, sync_folder
from batchinfer.core.home import CALIBRATION, JobData
from batchinfer.core.person import Person
from batchinfer.core.reasons import FailureReason
from batchinfer.core.records import Check, Info
from batchinfer.errors import StoreError
from batchinfer.job.spec import JobSpec
from batchinfer.publish import build, lookup_index, matcher
from batchinfer.publish.build import RunFacts
from batchinfer.publish.candidate import Candidate
from batchinfer.publish.caution import Consent, check_not_empty, confirm_removal, remember_list
from batchinfer.publish.contents import Contents
from batchinfer.publish.judging import judge_candidate
from batchinfer.publish.matcher import Terms
from batchinfer.publish.needs import PublishingNeeds
from batchinfer.publish.spent import version_cost
from batchinfer.versions import folders, pointers, retention
from batchinfer.versions.answers_cost import VersionCost
from batchinfer.versions.layout import NAMES, PREDICTIONS, STUDENT
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.retention import Removed

if TYPE_CHECKING:  # what learns is loaded for jobs with a student alone
    from batchinfer.publish.student_report import VersionStudent


@dataclass(frozen=True, slots=True)
class Release:
    """How a release ended.

    version: None if nothing was published.
    same_as: the current version, if it says all this already.
    cost: what the candidate's answers took to make.
    contents: of the candidate.
    checks: of the gate; none where nothing is new.
    rejected: where the failed candidate lies.
    pinned: the version that is served in place of what was published.
    match: what its matcher holds.
    student: what came of its student; None for a job without the section, or where nothing is new.
    reasons: why rows have no answer, the most frequent first; none unless the gate refused the candidate.
    removed: old versions and candidates that were removed afterwards.
    """

    version: int | None
    contents: Contents
    checks: tuple[Check, ...] = ()
    rejected: Path | None = None
    pinned: int | None = None
    match: Terms | None = None
    student: VersionStudent | None = None
    reasons: tuple[FailureReason, ...] = ()
    removed: Removed = field(default_factory=Removed)
    same_as: int | None = None
    cost: VersionCost | None = None

    @property
    def candidate(self) -> str | None:
        """The name of the candidate, if the gate refused it."""
        return None if self.rejected is None else self.rejected.name

    @property
    def is_refused(self) -> bool:
        """Whether the gate refused the candidate. One that was forced is published with failed checks."""
        return self.rejected is not None

    @property
    def failed_checks(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]


def release(
    data: JobData,
    workspace: Workspace,
    run: RunFacts,
    person: Person,
    *,
    failed: int,
    needs: PublishingNeeds,
    consent: Consent,
) -> Release:
    """Builds a candidate and publishes it if its gate passes, or it is forced, and it says anything new.

    It is compared with what is served now, which is the pinned version where there is one. What it says is new if the
    current version does not say it: that is what is served once nothing is pinned any more.

    A version without entries, or one that removes most of what is served, is not published unless a person wants it.

    failed: prompts without an answer. Raises UsageError.
    """
    info, forced = person.info, consent.forced
    current = resolve_current(data, info)
    parent = resolve_parent(data, current, info)
    before, latest = (None if number is None else folders.folder_of(data, number) for number in (parent, current))
    candidate = Candidate(workspace, before, latest)
    if candidate.calibration.problem is not None:
        info(
            f"Scores are the model's own, since {candidate.calibration.problem}: run batchinfer calibrate {data.name}."
        )
    if candidate.contents.same:
        outcome = Release(None, candidate.contents, same_as=current)
        remember_list(data, run.input)
    else:
        with folders.draft_folder(data) as draft:
            info("Building the version ...")
            candidate.write(draft / PREDICTIONS)
            student = _add_student(candidate, workspace, needs, before, draft, info)
            checks = judge_candidate(data, candidate, workspace, run, failed, needs)
            passed = forced is not None or all(check.passed for check in checks)
            if passed:
                check_not_empty(candidate.contents.entries, consent)
                confirm_removal(candidate.contents.changes, candidate.contents.served, person, yes=consent.yes)
            version = next_number(data, workspace.store) if passed else None
            cost = version_cost(workspace, candidate.entries_sql)
            manifest = build.manifest_of(
                candidate, checks, version=version, run=run, parent=parent, forced=forced, student=student, cost=cost
            )
            built = Release(version, candidate.contents, tuple(checks), student=student, cost=cost)
            if version is None:
                outcome = replace(built, rejected=_reject(data, draft, manifest), reasons=candidate.failure_reasons())
            else:
                outcome = replace(built, match=_write_and_install(data, workspace, draft, version, manifest, info))
    removed = retention.retain(data, workspace.spec.keep, info)
    return replace(outcome, pinned=pinned_instead(data, info), removed=removed)


def _add_student(
    candidate: Candidate, workspace: Workspace, needs: PublishingNeeds, before: Path | None, draft: Path, info: Info
) -> VersionStudent | None:
    """Of a job that has one. What learns is not loaded for any other."""
    if workspace.spec.student is None:
        return None
    from batchinfer.publish.student import add_student

    return add_student(candidate, workspace, needs, before, draft, info)


def _write_and_install(
    data: JobData, workspace: Workspace, draft: Path, version: int, manifest: Manifest, info: Info
) -> Terms | None:
    """The files that serve, then the last steps; returns what the matcher holds."""
    spec, key = workspace.spec, workspace.query_list.source.key
    terms = make_findable(workspace.db, key, draft, spec, info)
    found = None if terms is None else terms.to_json()
    install_version(data, workspace.store, draft, version, manifest.derive(match=found))
    return terms


def make_findable(
    db: duckdb.DuckDBPyConnection, key: Sequence[Column], draft: Path, spec: JobSpec, info: Info
) -> Terms | None:
    """Writes lookup.lmdb and what it is read by, and matcher.bin if the job wants one; returns, and tells, what that holds.

    db: any; no table of it is read.
    """
    lookup_index.write_lookup(db, key, draft, spec.name, is_json=spec.output.is_json)
    terms = matcher.write_matcher(key, draft, spec.match, is_json=spec.output.is_json)
    if terms is not None:
        info(terms.message)
    return terms


def resolve_current(data: JobData, info: Info) -> int | None:
    """The version that was published last. A damaged CURRENT is repaired, and that is said."""
    current, fault = pointers.previous(data)
    if fault is not None and current is None:
        info(f"{fault} No version is whole, so the new one has no parent.")
    elif fault is not None and current is not None:
        with data.versions_lock(f"batchinfer publish {data.name}"):
            pointers.make_current(data, current)
        info(f"{fault} Version {current}, the newest whole one, is current again.")
    return current


def resolve_parent(data: JobData, current: int | None, info: Info) -> int | None:
    """The version that a new one follows: the one that is served now, so the pinned one, if it is whole."""
    try:
        pin = pointers.pointer(data, pointers.PIN)
    except StoreError:  # said at the end, by `pinned_instead`
        return current
    if pin is None or pin.version == current:
        return current
    try:
        folders.verify(data, pin.version, digest=pin.digest)
    except StoreError as exc:
        info(f"{exc} It is pinned, but the new version is compared with the current one instead.")
        return current
    return pin.version


def next_number(data: JobData, store: Store | None) -> int:
    """The number of the version to come; never one that was used, whatever became of it."""
    if store is None:
        return pointers.newest_number(data) + 1
    with store.open() as db:
        return max(pointers.newest_number(data), one_integer(db, "SELECT coalesce(max(version), 0) FROM versions")) + 1


def pinned_instead(data: JobData, info: Info) -> int | None:
    """The version that a pin serves in place of the current one, if it does."""
    try:
        found, current = pointers.pinned(data), pointers.pointer(data)
    except StoreError as exc:
        info(str(exc))
        return None
    return None if current is not None and current.version == found else found


def install_version(
    data: JobData,
    store: Store | None,
    draft: Path,
    version: int,
    manifest: Manifest,
    *,
    bytes_of: Manifest | None = None,
    current: bool = True,
) -> None:
    """The last steps of every publishing.

    store: None where the data folder has no cache. bytes_of: whose predictions.parquet and files beside it these must be.
    current: whether it is to be served.
    """
    build.write_manifest(draft, manifest)
    folders.sync_files(draft)
    build.check(draft)
    if bytes_of is not None:
        _check_same(Manifest.read(draft), bytes_of)
    if store is not None:
        store.add_version(version, manifest.run.run_id, manifest.rows)
    with data.versions_lock(f"batchinfer publish {data.name}"):
        folders.move_into_place(data, draft, version)
        if current:
            pointers.make_current(data, version)


def _check_same(written: Manifest, candidate: Manifest) -> None:
    """Raises StoreError where a version does not hold the bytes of the candidate that it is made from."""
    for name in (PREDICTIONS, NAMES, CALIBRATION, STUDENT):
        if written.files.get(name) != candidate.files.get(name):
            raise StoreError(f"{name} of the candidate {written.candidate} is damaged: its checksum differs.")


def _reject(data: JobData, draft: Path, manifest: Manifest) -> Path:
    """Keeps a candidate under its run's name, or that with a number: an older one is never overwritten."""
    build.write_manifest(draft, manifest)
    name = f"r{manifest.run.run_id}"
    with os_errors(data.rejected):
        folders.sync_files(draft)
        data.rejected.mkdir(parents=True, exist_ok=True)
        target, count = data.rejected / name, 1
        while target.exists():
            count += 1
            target = data.rejected / f"{name}-{count}"
        draft.rename(target)
        sync_folder(data.rejected)
    return target
