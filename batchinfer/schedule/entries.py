"""The jobs that have a schedule: those that were named, or all below ./jobs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from batchinfer.core.records import Info
from batchinfer.errors import BatchinferError, UsageError
from batchinfer.job import reader
from batchinfer.job.reader import FILE, Job
from batchinfer.schedule.agenda import ScheduledJob


def named_entries(jobs: Sequence[str]) -> list[ScheduledJob]:
    """The entries of these jobs; of none, those of all jobs below ./jobs that have a schedule.

    Raises UsageError or SpecError.
    """
    if jobs:
        return _distinct([_entry(reader.load(job, os.environ)) for job in jobs])
    found = [reader.load(str(path), os.environ) for path in all_job_files()]
    entries = [ScheduledJob(job, job.spec.schedule) for job in found if job.spec.schedule is not None]
    if not entries:
        raise UsageError(
            f"No job below {Path('jobs').absolute()} has a section schedule: "
            'add schedule: {cron: "0 3 * * 1"} to a job file, or name a job that has one.'
        )
    return _distinct(entries)


def _distinct(entries: list[ScheduledJob]) -> list[ScheduledJob]:
    """Raises UsageError for two jobs of one name."""
    first: dict[str, ScheduledJob] = {}
    for entry in entries:
        if first.setdefault(entry.name, entry) is not entry:
            raise UsageError(_two_of(first[entry.name], entry))
    return entries


def _two_of(one: ScheduledJob, other: ScheduledJob) -> str:
    return f"{one.job.path} and {other.job.path} are both named {one.name}: rename one of the jobs."


class JobFiles:
    """Reads the job files again and again, and says once what is wrong with one."""

    def __init__(self, jobs: Sequence[str], info: Info) -> None:
        """jobs: as they were named; none: all below ./jobs."""
        self._paths = [reader.find(job) for job in jobs]
        self._info = info
        self._read: dict[Path, tuple[int, ScheduledJob | None]] = {}
        self._said: dict[Path, str] = {}

    def __call__(self) -> list[ScheduledJob]:
        """Those that have a schedule now, each name once. What cannot be read is left out as long as that is so."""
        entries: dict[str, ScheduledJob] = {}
        paths = self._paths or all_job_files()
        self._read = {path: read for path, read in self._read.items() if path in paths}
        for path in paths:
            if (entry := self._entry(path)) is not None and entries.setdefault(entry.name, entry) is not entry:
                self._say(path, f"{_two_of(entries[entry.name], entry)} The second one is not run.")
        return list(entries.values())

    def is_wrong(self, path: Path) -> bool:
        """Whether a job file is there, and something is wrong with it."""
        return path in self._said and path.exists()

    def _entry(self, path: Path) -> ScheduledJob | None:
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            changed = 0
        if path not in self._read or self._read[path][0] != changed:
            try:
                job = reader.load(str(path), os.environ)
            except (BatchinferError, OSError) as exc:  # it may pass without a change of the file: it is tried again
                self._say(path, f"{exc} It is not run as long as that is so.")
                return None
            self._said.pop(path, None)
            self._read[path] = changed, None if job.spec.schedule is None else ScheduledJob(job, job.spec.schedule)
        return self._read[path][1]

    def _say(self, path: Path, text: str) -> None:
        if self._said.get(path) != text:
            self._said[path] = text
            self._info(text)


def all_job_files() -> list[Path]:
    """Those below ./jobs."""
    return sorted(path.absolute() for path in Path("jobs").glob(f"*/{FILE}"))


def _entry(job: Job) -> ScheduledJob:
    if job.spec.schedule is None:
        raise UsageError(
            f'{job.path} has no section schedule: add one, such as schedule: {{cron: "0 3 * * 1", timezone: Europe/Berlin}}.'
        )
    return ScheduledJob(job, job.spec.schedule)
