"""Which jobs are due, and in which order they are started. Pure: the time comes from whoever asks.

since ──●──────●──────●── now       due times that passed: one run stands for all of them
        t1     t2     t3
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from batchinfer.job.reader import Job
from batchinfer.job.schedule_spec import ScheduleSpec


@dataclass(frozen=True, slots=True)
class ScheduledJob:
    """A job that has a schedule.

    job: as its file has it now.
    schedule: its section of that name.
    """

    job: Job
    schedule: ScheduleSpec

    @property
    def name(self) -> str:
        return self.job.name

    @property
    def upstream(self) -> str | None:
        """The job whose served version is this one's list, if it is chained."""
        return self.job.spec.input.job


@dataclass(frozen=True, slots=True)
class Settled:
    """What is known of a job's due times.

    since: all of them up to this one were run, or need not be; UTC.
    unfinished: the one that was being run when the scheduler was stopped; None if there is none.
    began, ended: of the last run; None before the first, and while it runs.
    exit_code: that it ended with.
    line: the cron fields and time zone that these times are of.
    """

    since: datetime
    unfinished: datetime | None = None
    began: datetime | None = None
    ended: datetime | None = None
    exit_code: int | None = None
    line: str | None = None

    def under(self, entry: ScheduledJob, now: datetime) -> Settled:
        """The same for the cron line that a job has now: times that another line left open were never this one's."""
        line = f"{entry.schedule.cron} {entry.schedule.timezone}"
        if self.line == line:
            return self
        return replace(self, since=now if self.line else self.since, line=line)


@dataclass(frozen=True, slots=True)
class Due:
    """A run that should begin.

    entry: of its job.
    at: the due time that it is for, the last of those that passed; UTC.
    passed: how many due times it stands for.
    """

    entry: ScheduledJob
    at: datetime
    passed: int


def due_run(entry: ScheduledJob, settled: Settled, now: datetime) -> Due | None:
    """The run that stands for all due times which have passed and were not run. None if there is none."""
    at, passed = settled.unfinished, int(settled.unfinished is not None)
    for time in entry.schedule.times_after(settled.since):
        if time > now:
            break
        at, passed = time, passed + 1
    return None if at is None else Due(entry, at, passed)


def to_start(due: Sequence[Due], running: Collection[str], held: Collection[str], at_once: int) -> list[Due]:
    """What can begin now, the longest due first. A chained job waits for what it chains on.

    running: names of jobs that run; none is started on top of itself. held: those that something else is in the way of.
    at_once: how many may run.
    """
    started: list[Due] = []
    unready = {*running, *(each.entry.name for each in due)}
    upstream = {each.entry.name: each.entry.upstream for each in due}
    for each in sorted(due, key=lambda each: (each.at, each.entry.name)):
        if len(running) + len(started) >= at_once:
            break
        if each.entry.name not in {*running, *held} and not unready & _above(each.entry.name, upstream):
            started.append(each)
    return started


def _above(name: str, upstream: Mapping[str, str | None]) -> set[str]:
    """The jobs that one chains on, as far as they are due; none where it chains on itself: its run says so."""
    above: set[str] = set()
    parent = upstream.get(name)
    while parent is not None and parent not in above:
        if parent == name:
            return set()
        above.add(parent)
        parent = upstream.get(parent)
    return above
