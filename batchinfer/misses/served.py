"""Counts the look-ups that a server's workers answered into the jobs' folders, by version.

The workers' own counters are the source. What of them is counted already is written with each count, so that nothing is counted
twice, whoever is killed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

from batchinfer.core.files import UNREAD, os_errors, read_small, write_atomically
from batchinfer.core.home import JobData
from batchinfer.errors import StoreError
from batchinfer.misses.counter import server_name
from batchinfer.versions import pointers
from batchinfer.versions.lookups import COUNTED, ServedVersions, Totals


class ServedCounter:
    """Adds what a server's workers counted to the jobs' folders, round by round."""

    def __init__(self, data: Path, metrics: Path, server: str, report: Callable[[str], None]) -> None:
        """metrics: the folder of the workers' counters. server: its name, the same for each start. report: told of faults, once."""
        self._data, self._metrics, self._server, self._report = data, metrics, server, report
        self._reported: dict[str, str] = {}  # by job
        # totals of jobs that were removed: what was answered before is not their successors'
        self._gone: dict[str, Totals] = {}
        self._versions: dict[str, int] = {}  # as of the round before: what was answered since is mostly theirs

    def round(self) -> None:
        """What cannot be written now is counted by a later round."""
        for job, totals in self._totals().items():
            try:
                with os_errors(self._data / job):
                    self._add(job, totals)
                self._reported.pop(job, None)
            except StoreError as exc:
                if self._reported.get(job) != str(exc):
                    self._report(f"The look-ups of {job} that were answered are not counted yet: {exc}")
                self._reported[job] = str(exc)

    def _totals(self) -> dict[str, Totals]:
        """By job: what each worker of this start counted, those that died, too."""
        totals: dict[str, Totals] = {}
        for path in sorted(self._metrics.glob("*.json")):
            with contextlib.suppress(*UNREAD):  # it is whole in the next round
                for name, job, count in json.loads(read_small(path))["counters"]:
                    if name in COUNTED and job:
                        workers = totals.setdefault(job, {})
                        workers[path.stem] = workers.get(path.stem, 0) + count
        return totals

    def _add(self, job: str, totals: Totals) -> None:
        data = JobData(self._data, job)
        if data.is_removed or not data.folder.is_dir():
            self._gone[job] = totals
            self._versions.pop(job, None)
            return
        if (now := _version(data)) is None:
            return
        path = data.served / f"{server_name(self._server)}.json"
        before = ServedVersions.read(path, str(self._metrics), self._gone.get(job, {}))
        version = self._versions.get(job, now)
        self._versions[job] = now
        after = before.plus(version, totals)
        if after != before:
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, after.to_bytes())


def _version(data: JobData) -> int | None:
    """What is served now, as far as the pointers say."""
    with contextlib.suppress(StoreError):
        pinned = pointers.pinned(data)
        current = pointers.pointer(data)
        return pinned or (current.version if current else None)
    return None
