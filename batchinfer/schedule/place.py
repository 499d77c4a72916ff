"""Where and how another scheduler runs `batchinfer run`, and the files that tell it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cronsim import CronSim

from batchinfer.core.home import VARIABLE
from batchinfer.core.version import __version__
from batchinfer.errors import UsageError
from batchinfer.job.reader import ROOTS_VARIABLE
from batchinfer.job.schedule_spec import FROM
from batchinfer.schedule.agenda import ScheduledJob

IMAGE, CLAIM = f"batchinfer-run:{__version__}", "batchinfer"


@dataclass(frozen=True, slots=True)
class UnitFile:
    """A file for another scheduler.

    name: of the file.
    content: all of it.
    """

    name: str
    content: str


@dataclass(frozen=True, slots=True)
class Target:
    """What runs a job.

    python: the interpreter that has batchinfer.
    home: the data folder.
    folder: the working directory.
    image: a container image, where one runs it.
    claim: the volume claim with the folders data, jobs and cache, where a container runs it.
    """

    python: str
    home: Path
    folder: Path
    image: str = IMAGE
    claim: str = CLAIM

    @classmethod
    def here(cls, home: Path, image: str | None = None, claim: str | None = None) -> Self:
        """With the interpreter that runs now, in the folder where it does."""
        return cls(sys.executable, home.absolute(), Path.cwd(), image or IMAGE, claim or CLAIM)

    def environment(self, entry: ScheduledJob) -> list[str]:
        """NAME=VALUE of the variables that a run needs to find its data folder and its list."""
        roots = os.pathsep.join(map(str, entry.job.roots))
        return [f"{VARIABLE}={self.home}", *([f"{ROOTS_VARIABLE}={roots}"] if roots else [])]

    def command(self, entry: ScheduledJob) -> list[str]:
        """The words that run a job on this machine."""
        return [self.python, "-m", "batchinfer", "run", str(entry.job.path), *hours_option(entry)]


def hours_option(entry: ScheduledJob) -> list[str]:
    """--max-hours, where the job has it."""
    hours = entry.schedule.max_hours
    return [] if hours is None else ["--max-hours", f"{hours:g}"]


@dataclass(frozen=True, slots=True)
class PlainFields:
    """A cron line as numbers, each field sorted.

    minutes, hours, days, months, weekdays: those that fit; weekdays from 0, a Sunday, to 6.
    both_days: whether day of the month and day of the week must both fit; else one of them is enough.
    """

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    both_days: bool


def plain_fields(entry: ScheduledJob, kind: str) -> PlainFields:
    """Raises UsageError for what only our own scheduler understands. kind: the other scheduler, in the message."""
    parsed = CronSim(entry.schedule.cron, FROM)
    fields = (parsed.minutes, parsed.hours, parsed.days, parsed.months, parsed.weekdays)
    if not all(isinstance(each, int) and each >= 0 for field in fields for each in field):
        raise UsageError(
            f"{entry.job.path}: schedule.cron is {entry.schedule.cron}, and L, LW and # are not known to {kind}: "
            "use plain numbers, or batchinfer schedule run."
        )
    weekdays = {day % 7 for day in parsed.weekdays if isinstance(day, int)}
    minutes, hours, days, months = (tuple(sorted(field)) for field in fields[:4])
    return PlainFields(minutes, hours, days, months, tuple(sorted(weekdays)), parsed.day_and)


def plain_line(entry: ScheduledJob, kind: str) -> str:
    """The cron line in numbers that all crons read alike. Raises UsageError for one that they do not."""
    fields = plain_fields(entry, kind)
    whole = (60, 24, 31, 12, 7)
    values = (fields.minutes, fields.hours, fields.days, fields.months, fields.weekdays)
    said = ["*" if len(each) == count else ",".join(map(str, each)) for each, count in zip(values, whole, strict=True)]
    if not fields.both_days and "*" in (said[2], said[4]):  # one of them is enough, and one always fits
        said[2] = said[4] = "*"
    if fields.both_days and "*" not in (said[2], said[4]):
        raise UsageError(
            f"{entry.job.path}: schedule.cron is {entry.schedule.cron}, where both the day of the month and the day of the week must fit: "
            f"{kind} would take either. Use systemd, or batchinfer schedule run."
        )
    return " ".join(said)
