"""Cache → gate → version → CURRENT, in the order that lets nothing unvalidated be served."""

from __future__ import annotations

import getpass
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from batchinfer import build, gate, publish
from batchinfer.build import Contents
from batchinfer.errors import NotFound, StoreError, UsageError
from batchinfer.gate import Check
from batchinfer.home import JobHome, readable_faults
from batchinfer.jobfile import Job
from batchinfer.keys import Column
from batchinfer.plan import Plan, scratch_database
from batchinfer.snapshot import MANIFEST, PREDICTIONS, Manifest
from batchinfer.store import Store
from batchinfer.tables import iso, now


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return str(os.getuid())


@dataclass(frozen=True, slots=True)
class Forced:
    """Why someone publishes what the gate refuses; kept in the manifest."""

    why: str
    by: str = field(default_factory=_user)
    at: str | None = field(default_factory=lambda: iso(now()))


@dataclass(frozen=True, slots=True)
class Release:
    """How a release ended. version: None if nothing was published; rejected: where the failed candidate lies."""

    version: int | None
    contents: Contents
    checks: list[Check]
    rejected: Path | None = None

    @property
    def failed_checks(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]


def release(
    job: Job,
    home: JobHome,
    plan: Plan,
    store: Store,
    *,
    failed: int,
    run: Mapping[str, Any],
    say: Callable[[str], None],
    forced: Forced | None = None,
) -> Release:
    """Builds a candidate and publishes it if its gate passes, or it is forced, and it says anything new.

    failed: prompts without an answer. run: facts of the run, for the manifest.
    """
    current = publish.pointer(home)
    before = publish.folder_of(home, current.version) if current else None
    contents = build.collect(plan, store, job.spec, before)
    if contents.same:
        return Release(None, contents, [])
    checks = gate.judge(job.spec.gate, build.figures(plan, contents, failed))
    passed = forced is not None or all(check.passed for check in checks)
    with publish.draft_folder(home) as draft:
        say("Building the version ...")
        build.write_predictions(plan, draft / PREDICTIONS)
        version = publish.next_number(home) if passed else None
        facts = build.manifest_facts(
            job, plan, contents, checks, version=version, run=run, parent=current.version if current else None,
            forced=asdict(forced) if forced else None,
        )  # fmt: skip
        if version is None:
            build.write_manifest(draft, facts)
            return Release(None, contents, checks, _reject(home, draft, int(run["run_id"])))
        build.write_lookup(plan, draft, job.spec)
        install(home, store, draft, version, facts)
        return Release(version, contents, checks)


def release_candidate(
    job: Job, home: JobHome, store: Store, name: str, key: Sequence[Column] | None, forced: Forced | None
) -> tuple[int | None, Manifest]:
    """Publishes exactly the bytes of a rejected candidate; its gate is not asked again.

    key: of the job's list, or None where there is no list; then its names alone must agree.
    Returns the version, or None if these very bytes are served already, and the candidate's manifest.
    Raises NotFound, UsageError or StoreError.
    """
    known = candidates(home)
    if name not in known:
        raise NotFound(f"The job {home.name} has no candidate {name}: it has {', '.join(known) or 'none'}.")
    place = home.rejected / name
    manifest = Manifest.read(place)
    _check_fits(job, name, manifest, key)
    failed = [check["name"] for check in manifest.content["gate"]["checks"] if not check["passed"]]
    if forced is None and failed:
        raise UsageError(
            f"The candidate {name} failed its gate ({', '.join(failed)}): --force --why TEXT publishes it all the same."
        )
    current = publish.pointer(home)
    if current is not None and _equal(Manifest.read(publish.folder_of(home, current.version)), manifest):
        return None, manifest
    with publish.draft_folder(home) as draft:
        with readable_faults(draft):
            shutil.copyfile(place / PREDICTIONS, draft / PREDICTIONS)
        with home.scratch() as scratch, scratch_database(scratch) as db:
            build.index(db, manifest.key, draft, job.name, manifest.content["prediction"])
        version = publish.next_number(home)
        facts = {part: fact for part, fact in manifest.content.items() if part not in ("format", "files")} | {
            "version": version,
            "created_at": iso(now()),
            "parent": current.version if current else None,
            "candidate": name,
            "forced": asdict(forced) if forced else None,
        }
        install(home, store, draft, version, facts, bytes_of=manifest)
    return version, manifest


def candidates(home: JobHome) -> list[str]:
    """The names of what the gate refused, in the order of their runs."""
    if not home.rejected.is_dir():
        return []
    names = [path.name for path in home.rejected.iterdir() if (path / MANIFEST).is_file()]
    return sorted(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])


def _check_fits(job: Job, name: str, manifest: Manifest, key: Sequence[Column] | None) -> None:
    """A candidate that is looked up or read otherwise than the job says now would break those who ask. Raises UsageError."""
    spec = job.spec
    wanted = list(spec.input.key) if key is None else [f"{column.name} ({column.kind})" for column in key]
    has = [column.name if key is None else f"{column.name} ({column.kind})" for column in manifest.key]
    for what, theirs, ours in (
        ("job", manifest.job, job.name),
        ("lookup key", ", ".join(has), ", ".join(wanted)),
        ("normalize", ", ".join(manifest.normalize) or "nothing", ", ".join(spec.input.normalize) or "nothing"),
        ("kind of prediction", manifest.content["prediction"], build.prediction_kind(spec)),
    ):
        if theirs != ours:
            raise UsageError(
                f"The candidate {name} does not fit the job as it is now: its {what} is {theirs}, the job's is {ours}. "
                "Publish from the cache instead."
            )


def _equal(served: Manifest, candidate: Manifest) -> bool:
    """Whether both are looked up alike, and hold the same bytes."""
    digests = [manifest.files[PREDICTIONS]["sha256"] for manifest in (served, candidate)]
    return digests[0] == digests[1] and (served.key, served.normalize) == (candidate.key, candidate.normalize)


def install(
    home: JobHome,
    store: Store | None,
    draft: Path,
    version: int,
    facts: Mapping[str, Any],
    *,
    bytes_of: Manifest | None = None,
    names: Sequence[str] = (publish.CURRENT,),
) -> None:
    """The last steps of every publishing.

    store: None where the data folder has no cache. bytes_of: whose predictions.parquet these bytes must be.
    names: of the pointers that are to name the version.
    """
    build.write_manifest(draft, facts)
    publish.sync_files(draft)
    build.check(draft)
    if bytes_of is not None and Manifest.read(draft).files[PREDICTIONS] != bytes_of.files[PREDICTIONS]:
        raise StoreError(f"{PREDICTIONS} of the candidate {facts['candidate']} is damaged: its checksum differs.")
    publish.install(home, draft, version)
    if store is not None:
        store.add_version(version, int(facts["run"]["run_id"]), int(facts["rows"]))
    for name in names:
        publish.make_current(home, version, name)


def _reject(home: JobHome, draft: Path, run_id: int) -> Path:
    """Keeps a candidate under its run's name, or that with a number: an older one is never overwritten."""
    with readable_faults(home.rejected):
        home.rejected.mkdir(parents=True, exist_ok=True)
        target, count = home.rejected / f"r{run_id}", 1
        while target.exists():
            count += 1
            target = home.rejected / f"r{run_id}-{count}"
        draft.rename(target)
    return target
