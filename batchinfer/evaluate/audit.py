"""How well a version serves each group of its rows: figures with intervals, verdicts, and a card for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchinfer.core.files import os_errors, write_atomically
from batchinfer.core.home import JobData
from batchinfer.core.records import Info
from batchinfer.errors import NotFound, UsageError
from batchinfer.evaluate.card import card_of
from batchinfer.job.reader import Job, faulty
from batchinfer.planning.prepare import Options, prepare, quiet
from batchinfer.publish.changes import version_rows
from batchinfer.publish.golden import read_golden
from batchinfer.publish.sliced import audit_slices, check_slices
from batchinfer.publish.slices import AuditedSlice, FairVerdict, verdict_of
from batchinfer.versions.folders import folder_of, numbers
from batchinfer.versions.pointers import open_served
from batchinfer.versions.snapshot import Snapshot

REPORT, CARD = "audit.json", "card.md"


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found.

    job: its name.
    version: that was audited.
    verdict: fail if any group fails, pass only if all pass.
    slices: the groups of audit.slices.
    folder: where audit.json and card.md are.
    """

    job: str
    version: int
    verdict: FairVerdict
    slices: tuple[AuditedSlice, ...]
    folder: Path

    def to_json(self) -> dict[str, Any]:
        return {
            "job": self.job, "version": self.version, "verdict": self.verdict,
            "slices": [each.to_json() for each in self.slices], "swaps": [], "templates": [],
        }  # fmt: skip


def audit(job: Job, data: JobData, version: int | None, info: Info = quiet) -> AuditReport:
    """Audits a version against the list and the cache as they are, and writes what it found. version: None for what is served.

    Raises NotFound, SpecError, InputError, UsageError or StoreError.
    """
    if not job.spec.audit.slices:
        raise faulty(job, [(("audit",), "names nothing to look at: name columns of the list in audit.slices.")])
    data.require()
    with _version(data, version) as snapshot, prepare(job, data, Options(), info) as prepared:
        source, manifest = prepared.query_list.source, snapshot.manifest
        check_slices(job, source)
        if manifest.key != tuple(source.key):
            raise UsageError(
                f"Version {snapshot.number} has another key than the job has now: run and publish first, or audit with the job "
                "file that made it."
            )
        entries = f"({version_rows(snapshot.folder, source.key)})"
        slices = audit_slices(prepared.workspace, entries, read_golden(job, source.key))
        folder = data.audits / f"v{snapshot.number}"
        report = AuditReport(job.name, snapshot.number, verdict_of(each.verdict for each in slices), slices, folder)
        _write(report, card_of(job, manifest, slices, report.verdict))
    return report


@contextmanager
def _version(data: JobData, version: int | None) -> Iterator[Snapshot]:
    """The version to look at, held open so that it is not removed meanwhile. Raises NotFound."""
    if version is not None and version not in numbers(data):
        there = ", ".join(map(str, numbers(data))) or "none"
        raise NotFound(f"The job {data.name} has no version {version}", fix=f"there are: {there}.")
    with open_served(data) if version is None else Snapshot(folder_of(data, version)) as snapshot:
        yield snapshot


def _write(report: AuditReport, card: str) -> None:
    with os_errors(report.folder):
        report.folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(report.to_json(), ensure_ascii=False, indent=2)
    write_atomically(report.folder / REPORT, content.encode())
    write_atomically(report.folder / CARD, card.encode())
