"""One line for each job: what is served, how old it is, when it ran and will run, and whether all is well."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from batchinfer.alerts.attempts import AttemptStatus
from batchinfer.alerts.health import Health, job_health
from batchinfer.alerts.standing import pinned_facts
from batchinfer.core.clock import iso
from batchinfer.core.home import Data, job_names
from batchinfer.errors import BatchinferError, NotFound, SpecError
from batchinfer.job import reader
from batchinfer.job.schedule_spec import ScheduleSpec
from batchinfer.schedule.entries import all_job_files


@dataclass(frozen=True, slots=True)
class JobLine:
    """A line of `status`.

    job: its name.
    health: in a word.
    version: that is served, so the pinned one, else the one that was published last; None if there is none.
    pinned: whether a pin says so.
    age: since that was made; None without one.
    fresh_at: when a run ended well last, or a person published; UTC, None if never.
    stale_after: the limit of its alerts; None without one.
    last_run: when the last run ended, or began if it goes on; UTC, None if there is none.
    last_status: how it ended; None without one.
    next_run: the next due time, UTC; None without a schedule.
    timezone: of the schedule; None without one.
    wrong: what is wrong, a sentence each.
    pending: how many alerts are still to be told.
    undelivered: why they, and those that were given up, could not be told so far, a sentence for each receiver.
    """

    job: str
    health: Health
    version: int | None
    pinned: bool
    age: timedelta | None
    fresh_at: datetime | None
    stale_after: timedelta | None
    last_run: datetime | None
    last_status: AttemptStatus | None
    next_run: datetime | None
    timezone: str | None
    wrong: tuple[str, ...]
    pending: int
    undelivered: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Times in RFC 3339, lengths of time in seconds."""
        return {
            "job": self.job, "version": self.version, "pinned": self.pinned,
            "age_seconds": None if self.age is None else round(self.age.total_seconds()),
            "last_run": iso(self.last_run), "next_run": iso(self.next_run), "health": self.health,
            "last_status": self.last_status, "fresh_at": iso(self.fresh_at),
            "stale_after_seconds": None if self.stale_after is None else round(self.stale_after.total_seconds()),
            "problems": list(self.wrong), "alerts_pending": self.pending, "alerts_undelivered": list(self.undelivered),
        }  # fmt: skip


def overview(root: Path, names: Sequence[str], now: datetime) -> list[JobLine]:
    """The lines of these jobs; of none, those of all that the data folder has, and of all below ./jobs that have a schedule.

    now: in UTC. Raises NotFound where there are none.
    """
    there = job_names(root) if root.is_dir() else []
    schedules, broken = _schedules(root, names or there)
    found = names or sorted({*there, *schedules})
    if not found:
        raise NotFound(
            f"There are no jobs in the data folder {root}, and none below {Path('jobs').absolute()} has a schedule",
            fix="batchinfer run makes them, or choose another data folder with --home.",
        )
    return [_line(root, name, schedules.get(name), broken.get(name), now) for name in found]


def _line(root: Path, name: str, schedule: ScheduleSpec | None, broken: str | None, now: datetime) -> JobLine:
    """broken: what is wrong with its job file."""
    data = Data(root).of(name)
    found, pinned = job_health(data, now), pinned_facts(data)
    served = pinned or found.standing.published
    undelivered = {
        each.key: f"{each.receiver.name} {'was given up' if each.given_up else 'could not be told yet'}: {each.said}"
        for each in found.pending
        if each.said
    }
    return JobLine(
        job=name, health=found.health if broken is None else Health.FAILING,
        version=None if served is None else served.version, pinned=pinned is not None,
        age=None if served is None else max(now - served.made_at, timedelta()),
        fresh_at=found.fresh_at, stale_after=found.stale_after, last_run=found.last_run_at, last_status=found.last_status,
        next_run=None if schedule is None else next(schedule.times_after(now), None),
        timezone=None if schedule is None else schedule.timezone, wrong=found.wrong if broken is None else (*found.wrong, broken),
        pending=sum(not each.given_up for each in found.pending), undelivered=tuple(undelivered.values()),
    )  # fmt: skip


def _schedules(root: Path, names: Iterable[str]) -> tuple[dict[str, ScheduleSpec], dict[str, str]]:
    """The sections schedule of jobs below ./jobs, and of the files that the data folder knows these jobs by; and what is wrong with a file.

    What cannot be read is left out: a look at all jobs must not end at one of them.
    """
    paths = {path: path.parent.name for path in all_job_files()}  # as most jobs are called
    bound: dict[str, Path] = {}  # the files of which the data folder knows it
    for name in names:
        try:
            known = Data(root).of(name).record().job_file
        except BatchinferError:
            continue
        if known is not None and Path(known).is_file():
            paths[Path(known)], bound[name] = name, Path(known)
    found: dict[str, ScheduleSpec] = {}
    wrong: dict[str, str] = {}
    for path, known_as in paths.items():
        try:
            job = reader.load(str(path), os.environ)
        except SpecError as exc:
            if bound.get(known_as, path) == path:
                wrong[known_as] = f"It does not run as long as its job file is wrong: {exc.summary or exc}"
            continue
        except (BatchinferError, OSError):  # others may be able to read it
            continue
        if job.spec.schedule is not None:
            found.setdefault(job.name, job.spec.schedule)
    return found, wrong
