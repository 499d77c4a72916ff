"""Entries of jobs that need no files, and a clock and runs that the tests move on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from batchinfer.errors import ExitCode
from batchinfer.job import reader
from batchinfer.job.reader import Job
from batchinfer.schedule.agenda import ScheduledJob
from batchinfer.schedule.launch import Ended, Running

WEEKLY = "0 3 * * 1"
START = datetime(2026, 1, 1, tzinfo=UTC)


def scheduled(
    name: str = "shop", cron: str = WEEKLY, timezone: str = "UTC", folder: str = "/srv/jobs", **sections: Any
) -> ScheduledJob:
    """An entry of an imports-only job."""
    content = {
        "name": name,
        "input": {"path": "queries.parquet", "key": ["id"]},
        "schedule": {"cron": cron, "timezone": timezone},
        **sections,
    }
    path = f"{folder}/{name}/job.yaml"
    spec = reader.parse(yaml.safe_dump(content), path)
    assert spec.schedule is not None
    return ScheduledJob(Job(spec, Path(path), ()), spec.schedule)


@dataclass
class SimulatedClock:
    """A clock that stands still until somebody waits."""

    time: datetime = START
    on_wait: Callable[[datetime], None] = lambda _: None

    def now(self) -> datetime:
        return self.time

    def wait(self, seconds: float) -> None:
        self.time += timedelta(seconds=max(seconds, 1.0))
        self.on_wait(self.time)


@dataclass
class SimulatedRun:
    """A run that takes a while of a simulated clock.

    begun, ends: at which time; stopped: whether it was told to stop; was_settled: whether the scheduler saw it come to its end.
    """

    clock: SimulatedClock
    begun: datetime
    ends: datetime
    exit_code: int = ExitCode.DONE
    stopped: bool = False
    was_settled: bool = False

    def ended(self) -> Ended | None:
        if not self.stopped and self.clock.now() < self.ends:
            return None
        code = self.exit_code or ExitCode.STOPPED if self.stopped else self.exit_code
        self.was_settled = code != ExitCode.BUSY and not (self.stopped and code == ExitCode.STOPPED)
        return Ended(code, "It was told to stop." if self.stopped else "It was long.")

    def stop(self) -> None:
        self.stopped, self.ends = True, min(self.ends, self.clock.now())


@dataclass
class SimulatedLauncher:
    """Starts simulated runs, and notes them. takes: how long one takes, by its job and number; codes: how it ends."""

    clock: SimulatedClock
    takes: Callable[[str, int], timedelta] = lambda _name, _number: timedelta(minutes=10)
    codes: Callable[[str, int], int] = lambda _name, _number: ExitCode.DONE
    begun: list[tuple[str, datetime]] = field(default_factory=list)
    runs: list[SimulatedRun] = field(default_factory=list)
    made: list[tuple[str, SimulatedRun]] = field(default_factory=list)
    most_at_once: int = 0

    def __call__(self, entry: ScheduledJob) -> Running:
        now = self.clock.now()
        going = [run for run in self.runs if not run.stopped and run.ends > now]
        self.most_at_once = max(self.most_at_once, len(going) + 1)
        number = sum(name == entry.name for name, _ in self.begun)
        self.begun.append((entry.name, now))
        run = SimulatedRun(self.clock, now, now + self.takes(entry.name, number), self.codes(entry.name, number))
        self.runs.append(run)
        self.made.append((entry.name, run))
        return run

    def times(self, name: str) -> list[datetime]:
        """When the runs of a job began."""
        return [time for job, time in self.begun if job == name]
