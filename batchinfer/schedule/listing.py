"""When scheduled jobs ran last, and when they will next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from batchinfer.core.clock import iso
from batchinfer.schedule.agenda import ScheduledJob, Settled


@dataclass(frozen=True, slots=True)
class ListedJob:
    """A line of `schedule list`.

    job: its name.
    cron: its five fields.
    timezone: of them.
    words: both, as people say them.
    last: when its last run began, UTC; None if the scheduler has not run it.
    exit_code: that it ended with; None where there is none yet.
    next: the next due time, UTC; None if the cron fields fire no more.
    """

    job: str
    cron: str
    timezone: str
    words: str
    last: datetime | None
    exit_code: int | None
    next: datetime | None

    def to_json(self) -> dict[str, Any]:
        """Times in RFC 3339."""
        return {
            "job": self.job, "cron": self.cron, "timezone": self.timezone, "words": self.words,
            "last": iso(self.last), "exit_code": self.exit_code, "next": iso(self.next),
        }  # fmt: skip


def listed_jobs(entries: Sequence[ScheduledJob], known: Mapping[str, Settled], now: datetime) -> list[ListedJob]:
    """In the order of their next times. known: what a scheduler remembers of them."""
    lines = [_line(entry, known.get(entry.name, Settled(now)), now) for entry in entries]
    return sorted(lines, key=lambda line: (line.next is None, line.next or now, line.job))


def _line(entry: ScheduledJob, settled: Settled, now: datetime) -> ListedJob:
    schedule = entry.schedule
    return ListedJob(
        entry.name, schedule.cron, schedule.timezone, schedule.words, settled.began, settled.exit_code,
        next(schedule.times_after(now), None),
    )  # fmt: skip
