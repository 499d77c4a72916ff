"""Cache → gate → version → CURRENT, in the order that lets nothing unvalidated be served."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchinfer import build, gate, publish
from batchinfer.build import Contents
from batchinfer.gate import Check
from batchinfer.home import JobHome, readable_faults
from batchinfer.jobfile import Job
from batchinfer.plan import Plan
from batchinfer.snapshot import PREDICTIONS
from batchinfer.store import Store


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
) -> Release:
    """Builds a candidate and publishes it if its gate passes and it says anything new.

    failed: prompts without an answer. run: facts of the run, for the manifest.
    """
    current = publish.pointer(home)
    before = publish.folder_of(home, current.version) if current else None
    contents = build.collect(plan, store, job.spec, before)
    if contents.same:
        return Release(None, contents, [])
    checks = gate.judge(job.spec.gate, build.figures(plan, contents, failed))
    passed = all(check.passed for check in checks)
    with readable_faults(home.versions):
        home.versions.mkdir(parents=True, exist_ok=True)
        for left in home.versions.glob(".building-*"):  # by a process that was killed: this one holds the run lock
            shutil.rmtree(left, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=".building-", dir=home.versions)) / "version"
    try:
        say("Building the version ...")
        draft.mkdir()
        build.write_predictions(plan, draft / PREDICTIONS)
        version = publish.next_number(home) if passed else None
        facts = build.manifest_facts(
            job, plan, contents, checks, version=version, run=run, parent=current.version if current else None
        )
        if version is None:
            build.write_manifest(draft, facts)
            return Release(None, contents, checks, _reject(home, draft, int(run["run_id"])))
        build.write_lookup(plan, draft, job.spec)
        build.write_manifest(draft, facts)
        publish.sync_files(draft)
        build.check(draft)
        publish.install(home, draft, version)
        publish.make_current(home, version)
        return Release(version, contents, checks)
    finally:
        shutil.rmtree(draft.parent, ignore_errors=True)


def _reject(home: JobHome, draft: Path, run_id: int) -> Path:
    target = home.rejected / f"r{run_id}"
    with readable_faults(target):
        home.rejected.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    return target
