"""Cache → gate → version → CURRENT, in the order that lets nothing unvalidated be served."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchinfer.cache.store import Store
from batchinfer.core.columns import Column
from batchinfer.core.database import one
from batchinfer.core.files import os_errors, sync_folder
from batchinfer.core.home import JobData
from batchinfer.errors import StoreError
from batchinfer.inputs.query_list import Plan
from batchinfer.job.reader import Job
from batchinfer.job.spec import JobSpec
from batchinfer.publish import build, evidence, gate, golden, lookup_index, matcher
from batchinfer.publish.contents import Contents, collect
from batchinfer.publish.gate import Check
from batchinfer.publish.golden import Golden, Wrong
from batchinfer.versions import folders, pointers, retention
from batchinfer.versions.layout import PREDICTIONS
from batchinfer.versions.manifest import Forced, Manifest


@dataclass(frozen=True, slots=True)
class Release:
    """How a release ended. version: None if nothing was published; rejected: where the failed candidate lies.

    pinned: the version that is served in place of what was published, if one is. match: what its matcher holds.
    """

    version: int | None
    contents: Contents
    checks: list[Check]
    rejected: Path | None = None
    pinned: int | None = None
    match: Mapping[str, Any] | None = None

    @property
    def failed_checks(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]


def release(
    job: Job,
    data: JobData,
    plan: Plan,
    store: Store,
    *,
    failed: int,
    known: Golden | None,
    run: Mapping[str, Any],
    say: Callable[[str], None],
    forced: Forced | None = None,
) -> Release:
    """Builds a candidate and publishes it if its gate passes, or it is forced, and it says anything new.

    It is compared with what is served now, which is the pinned version where there is one. What it says is new if the
    current version does not say it: that is what is served once nothing is pinned any more.

    failed: prompts without an answer. known: the job's golden rows. run: facts of the run, for the manifest.
    """
    current = _current(data, say)
    parent = _served(data, current, say)
    before, latest = (None if number is None else folders.folder_of(data, number) for number in (parent, current))
    contents = collect(plan, store, job.spec, before, latest)
    if contents.same:
        outcome = Release(None, contents, [])
    else:
        with folders.draft_folder(data) as draft:
            say("Building the version ...")
            build.write_predictions(plan, draft / PREDICTIONS)
            checks = _judged(job, plan, store, contents, before, failed, known)
            refused = forced is None and not all(check.passed for check in checks)
            version = None if refused else next_number(data, store)
            manifest = build.manifest_of(
                job, plan, contents, checks, version=version, run=run, parent=parent, forced=forced
            )
            if version is None:
                build.write_manifest(draft, manifest)
                outcome = Release(None, contents, checks, _reject(data, draft, int(run["run_id"])))
            else:
                lookup_index.write_lookup(plan, draft, job.spec)
                held = _matcher(plan.source.key, draft, job.spec, say)
                install_version(data, store, draft, version, manifest.derive(match=held))
                outcome = Release(version, contents, checks, match=held)
    retention.retain(data, job.spec.keep_versions)
    return replace(outcome, pinned=pinned_instead(data, say))


def _matcher(key: Sequence[Column], draft: Path, spec: JobSpec, say: Callable[[str], None]) -> dict[str, Any] | None:
    held = matcher.write_matcher(key, draft, spec.match, spec.output.kind)
    if held is None:
        return None
    say(held.says)
    return held.to_json()


def _judged(
    job: Job, plan: Plan, store: Store, contents: Contents, before: Path | None, failed: int, known: Golden | None
) -> list[Check]:
    """What the gate says of a candidate, with examples of what it refuses."""
    right, wrong = 0, list[Wrong]()
    if known is not None:
        right, wrong = golden.score(plan.db, known, evidence.MOST, as_json=job.spec.output.is_json)
    candidate = evidence.Candidate(job.spec, plan, store, before, wrong)
    figures = build.figures(plan, contents, failed, golden=known.rows.num_rows if known else 0, right=right)
    return evidence.attach(gate.judge(job.spec.gate, figures), candidate)


def _current(data: JobData, say: Callable[[str], None]) -> int | None:
    """The version that was published last. Where CURRENT does not tell, it is mended and that is said."""
    current, fault = pointers.previous(data)
    if fault is not None and current is None:
        say(f"{fault} No version is whole, so that the new one follows none.")
    elif fault is not None and current is not None:
        with data.versions_lock(f"batchinfer publish {data.name}"):
            pointers.make_current(data, current)
        say(f"{fault} Version {current}, the newest whole one, is current again.")
    return current


def _served(data: JobData, current: int | None, say: Callable[[str], None]) -> int | None:
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
        say(f"{exc} It is pinned, but the new version is compared with the current one in its place.")
        return current
    return pin.version


def next_number(data: JobData, store: Store | None) -> int:
    """The number of the version to come; never one that was used, whatever became of it."""
    if store is None:
        return pointers.newest_number(data) + 1
    with store.open() as db:
        return max(pointers.newest_number(data), int(one(db, "SELECT coalesce(max(version), 0) FROM versions"))) + 1


def pinned_instead(data: JobData, say: Callable[[str], None]) -> int | None:
    """The version that a pin serves in place of the current one, if it does."""
    try:
        found, current = pointers.pinned(data), pointers.pointer(data)
    except StoreError as exc:
        say(str(exc))
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

    store: None where the data folder has no cache. bytes_of: whose predictions.parquet these bytes must be.
    current: whether it is to be served.
    """
    build.write_manifest(draft, manifest)
    folders.sync_files(draft)
    build.check(draft)
    if bytes_of is not None and Manifest.read(draft).files[PREDICTIONS] != bytes_of.files[PREDICTIONS]:
        raise StoreError(f"{PREDICTIONS} of the candidate {manifest.candidate} is damaged: its checksum differs.")
    if store is not None:
        store.add_version(version, int(manifest.run["run_id"]), manifest.rows)
    with data.versions_lock(f"batchinfer publish {data.name}"):
        folders.add(data, draft, version)
        if current:
            pointers.make_current(data, version)


def _reject(data: JobData, draft: Path, run_id: int) -> Path:
    """Keeps a candidate under its run's name, or that with a number: an older one is never overwritten."""
    with os_errors(data.rejected):
        folders.sync_files(draft)
        data.rejected.mkdir(parents=True, exist_ok=True)
        target, count = data.rejected / f"r{run_id}", 1
        while target.exists():
            count += 1
            target = data.rejected / f"r{run_id}-{count}"
        draft.rename(target)
        sync_folder(data.rejected)
    return target
