"""The loop of `batchinfer schedule run`: looks which jobs are due, starts them, settles how they ended, waits.

    entries ─► what is due ─► start ─► running ─► settled on disk
       ▲                                              │
       └────────────── wait, a minute at most ◄───────┘

A due time is on disk as unfinished before its run begins, and as settled once that ended: a scheduler that dies between
begins it again, and the cache has what was answered.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from batchinfer.core.clock import iso
from batchinfer.core.records import Info
from batchinfer.errors import BatchinferError, ExitCode, StoreError, counted
from batchinfer.schedule.agenda import Due, Room, ScheduledJob, Settled, due_run, to_start
from batchinfer.schedule.launch import Ended, Launcher, Running
from batchinfer.schedule.memory import Memory, is_ahead

LOOK_SECONDS = 60.0  # at most between two looks: job files change, and clocks are set
DOUBT = timedelta(hours=6)  # after which the clock is believed that runs now, and not the one that ran before
ONE_AT_A_TIME = Room(at_once=1)
HELD_AGAIN = timedelta(minutes=1)  # after which a run that something else stood in the way of is tried again

# no failures, or told by the run
WELL_KNOWN = (ExitCode.DONE, ExitCode.REFUSED, ExitCode.STOPPED, ExitCode.BUSY, ExitCode.INTERRUPTED)

JobSource = Callable[[], Sequence[ScheduledJob]]  # the jobs that have a schedule now


class Clock(Protocol):
    """The time, and waiting for it."""

    def now(self) -> datetime:
        """In UTC."""

    def wait(self, seconds: float) -> None:
        """Until so many seconds have passed, or somebody wakes the scheduler."""


class SystemClock:
    """The system's clock. Threads and handlers of signals may wake who waits."""

    def __init__(self) -> None:
        self._woken = queue.SimpleQueue[None]()  # of which a handler may put into while the same thread takes out

    def now(self) -> datetime:
        return datetime.now(UTC)

    def wait(self, seconds: float) -> None:
        with contextlib.suppress(queue.Empty):
            self._woken.get(timeout=seconds)
            while True:
                self._woken.get_nowait()

    def wake(self) -> None:
        """Ends the wait that is going on, or the next one."""
        self._woken.put(None)


@dataclass(frozen=True, slots=True)
class _Run:
    """A run that goes on.

    due: what it is for.
    process: what was started.
    """

    due: Due
    process: Running


class Scheduler:
    """Runs jobs at their times, until it is told to stop."""

    def __init__(
        self, source: JobSource, launch: Launcher, memory: Memory, clock: Clock, info: Info, room: Room = ONE_AT_A_TIME,
        on_failure: Callable[[str, datetime, str], None] = lambda *_: None,
    ) -> None:  # fmt: skip
        """info: told what happens, one line each. room: of the machine.

        on_failure: given a job's name, when its run began, and a sentence, where it failed. Raises StoreError.
        """
        self._on_failure = on_failure
        self._source, self._launch, self._memory, self._clock, self._info = source, launch, memory, clock, info
        self._room = room
        self._known = memory.read()
        self._runs: dict[str, _Run] = {}
        self._held: dict[str, datetime] = {}  # jobs that something else holds, and when to try again
        self._doubted: datetime | None = None  # since when the clock is doubted
        self._told: set[str] = set()  # those of them that were told of
        self._names: set[str] = set()
        self._is_written, self._has_complained = True, False
        self._asked: set[str] = set()  # runs that were told to stop
        self._stopping = False

    def run(self) -> None:
        """Returns once it was told to stop and nothing runs any more. Hold `Memory.scheduling` around it."""
        try:
            while not (self._stopping and not self._runs):
                self._clock.wait(self.step())
        finally:
            self._stop_runs()  # none unless something failed

    def stop(self) -> None:
        """Starts nothing more, and asks what runs to end in order. A signal's handler may call it."""
        self._stopping = True

    def step(self) -> float:
        """One look: settles what ended, starts what is due. Returns the seconds until something can happen by itself."""
        self._settle_ended()
        self._written()
        if self._stopping:
            self._stop_runs()
            return LOOK_SECONDS if self._runs else 0.0
        now = self._clock.now()
        if self._doubts_clock(now):
            return min(LOOK_SECONDS, DOUBT.total_seconds())
        entries = self._entries(now)
        due = [found for entry in entries if (found := due_run(entry, self._known[entry.name], now)) is not None]
        held = {name for name, until in self._held.items() if until > now}
        for each in to_start(due, [run.due.entry for run in self._runs.values()], held, self._room):
            self._start(each, now)
        return self._until_next(entries, now)

    def _stop_runs(self) -> None:
        """Asks each run once: asked again, it would not finish what is in flight."""
        for name in self._runs.keys() - self._asked:
            self._asked.add(name)
            self._runs[name].process.stop()
            self._info(f"{name}: asked to stop in order.")

    def _entries(self, now: datetime) -> list[ScheduledJob]:
        """The jobs as their files have them now; what is new is noted: its times count from here on."""
        entries = list(self._source())
        names = {entry.name for entry in entries}
        for entry in entries:
            self._remember(entry.name, self._known.get(entry.name, Settled(now)).under(entry, now))
            if entry.name not in self._names:
                self._info(f"{entry.name}: {entry.schedule.words}; next at {_next(entry, self._known[entry.name])}")
        for name in sorted(self._names - names):
            self._info(f"{name} has no schedule any more.")
        self._names = names
        return entries

    def _doubts_clock(self, now: datetime) -> bool:
        """Whether jobs have times from the future. Either clock may be wrong, the one that runs now or the one that ran then.

        A machine without a battery begins years ago, until it is told the time: nothing is due until then. But a clock that
        once went ahead must not silence a job for a year: its times are given up for those of now after a while.
        """
        ahead = [name for name, settled in self._known.items() if is_ahead(settled, now)]
        if not ahead:
            self._doubted = None
        elif self._doubted is None or now < self._doubted:
            self._doubted = now
            self._info(
                f"The clock says {iso(now)}, and jobs were run after that: set it, or nothing runs for {DOUBT.seconds // 3600} hours."
            )
        elif now - self._doubted >= DOUBT:
            for name in ahead:
                self._remember(name, replace(self._known[name], since=now, unfinished=None))
            self._doubted = None
        return self._doubted is not None

    def _start(self, due: Due, now: datetime) -> None:
        name, before = due.entry.name, self._known[due.entry.name]
        self._held.pop(name, None)
        begun = replace(
            before, since=max(before.since, due.at), unfinished=due.at, began=now, ended=None, exit_code=None
        )
        if not self._remember(name, begun):
            self._known[name] = before
            return
        more = f", which stands for {counted(due.passed, 'due time')}" if due.passed > 1 else ""
        if name not in self._told:
            self._info(f"{name}: the run of {iso(due.at)} begins{more}.")
        try:
            self._runs[name] = _Run(due, self._launch(due.entry))
        except (BatchinferError, OSError) as exc:
            self._settle(due, Ended(ExitCode.BUSY, f"It could not be started: {exc} It is tried again in a minute."))

    def _settle_ended(self) -> None:
        for name, run in list(self._runs.items()):
            ended = run.process.ended()
            if ended is not None:
                del self._runs[name]
                self._settle(run.due, ended)

    def _settle(self, due: Due, ended: Ended) -> None:
        """Notes how a run ended. It stays unfinished where it was stopped with the scheduler, or something else held the job."""
        name, now = due.entry.name, self._clock.now()
        is_held = ended.exit_code == ExitCode.BUSY
        is_cut = self._stopping and (ended.exit_code < 0 or ended.exit_code in (ExitCode.STOPPED, ExitCode.INTERRUPTED))
        if is_held:
            self._held[name] = now + HELD_AGAIN
        unfinished = due.at if is_held or is_cut else None
        if not is_cut and ended.exit_code not in WELL_KNOWN:
            self._on_failure(name, self._known[name].began or now, ended.said)
        self._remember(name, replace(self._known[name], unfinished=unfinished, ended=now, exit_code=ended.exit_code))
        if is_held and name in self._told:
            return
        (self._told.add if is_held else self._told.discard)(name)
        failed = "" if ended.exit_code == ExitCode.DONE else f" (exit code {ended.exit_code})"
        self._info(f"{name}: the run of {iso(due.at)} ended{failed}. {ended.said}")

    def _remember(self, name: str, settled: Settled) -> bool:
        """Whether it is on disk, too."""
        if self._known.get(name) != settled:
            self._known[name], self._is_written = settled, False
        return self._written()

    def _written(self) -> bool:
        """Writes what is not on disk yet. A disk that is full for a while is no reason to end: it is tried at each look."""
        if not self._is_written:
            try:
                self._memory.write(self._known)
            except StoreError as exc:
                if not self._has_complained:
                    self._info(f"{exc} No run begins as long as that is so.")
                self._has_complained = True
                return False
        self._is_written, self._has_complained = True, False
        return True

    def _until_next(self, entries: Sequence[ScheduledJob], now: datetime) -> float:
        """Seconds until something is due, or to be tried again; runs that end wake the clock."""
        times = [next(entry.schedule.times_after(now), None) for entry in entries]
        times += [time for time in self._held.values() if time > now]
        nearest = min((time for time in times if time is not None), default=now + timedelta(seconds=LOOK_SECONDS))
        return min(LOOK_SECONDS, max(0.0, (nearest - now).total_seconds()))


def _next(entry: ScheduledJob, settled: Settled) -> str | None:
    """The first due time that is not settled, as text."""
    return iso(settled.unfinished or next(entry.schedule.times_after(settled.since), None))
