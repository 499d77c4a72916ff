"""Which jobs are due, and in which order they are started. Pure: the time comes from whoever asks.

since ──●──────●──────●── now       due times that passed: one run stands for all of them
        t1     t2     t3
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from batchinfer.job.engine_spec import VllmSpec
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

    def needs(self, gpus: int) -> int:
        """How many of a machine's GPUs its run holds: all where its replicas are auto, and one place where it needs none."""
        engine = self.job.spec.engine
        if self.job.spec.model is None or not gpus or not isinstance(engine, VllmSpec):
            return 1
        return gpus if engine.replicas == "auto" else min(gpus, int(engine.replicas) * engine.tensor_parallel)

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


@dataclass(frozen=True, slots=True)
class Room:
    """What a machine has for runs.

    at_once: how many may run; None for as many as its GPUs allow.
    gpus: of the machine.
    """

    at_once: int | None = None
    gpus: int = 0

    def left_by(self, running: Collection[ScheduledJob]) -> int:
        return (self.at_once or max(1, self.gpus)) - sum(map(self.taken_by, running))

    def taken_by(self, entry: ScheduledJob) -> int:
        return 1 if self.at_once else entry.needs(self.gpus)


def to_start(due: Sequence[Due], running: Collection[ScheduledJob], held: Collection[str], room: Room) -> list[Due]:
    """What can begin now, the longest due first. A chained job waits for what it chains on.

    running: jobs that run; none is started on top of itself. held: names of those that something else is in the way of.
    """
    started: list[Due] = []
    names, left = {entry.name for entry in running}, room.left_by(running)
    unready = {*names, *(each.entry.name for each in due)}
    upstream = {each.entry.name: each.entry.upstream for each in due}
    for each in sorted(due, key=lambda each: (each.at, each.entry.name)):
        if each.entry.name in {*names, *held} or unready & _above(each.entry.name, upstream):
            continue
        left -= room.taken_by(each.entry)
        if left < 0:  # nor does a smaller one overtake it, or it would wait for ever
            break
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
