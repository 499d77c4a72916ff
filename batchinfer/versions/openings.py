"""Versions that end the process which opens them, such as one that is too large for its memory.

While a version is opened a note lies in a folder, which stays where the process dies: those that come after it see that, and
leave the version alone for a while. A process that serves another version opens one only while nobody else does, and after a
death so does any: never more than one dies of it at a time. A version that may fit, but not beside the one before it, is
opened in the end by processes that have nothing open. Whoever opens it as a whole clears the notes: it can be opened.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from batchinfer.core.locks import lock
from batchinfer.errors import StoreError, counted
from batchinfer.versions.pointers import Pointer


class Opening(StrEnum):
    """What is opened of a version, and beside what."""

    ALONE = "alone"  # all of it, by a process that has nothing of the job open
    BESIDE = "beside"  # all of it, by one that has another version open until then
    LOOKUPS = "lookups"  # what look-ups need, where nothing else can be served


@dataclass(frozen=True, slots=True)
class _Limit:
    """When a version is left alone.

    deaths: after so many of such openings. One may be chance; but who serves another version has no need to find out.
    least, most: for how many seconds. In between it is tried again after as long as it has been ending processes.
    """

    deaths: int
    least: float
    most: float


LIMITS = {
    Opening.ALONE: _Limit(2, 1800.0, 7200.0),
    Opening.BESIDE: _Limit(1, 1800.0, 7200.0),  # who began again after it tries the version alone
    Opening.LOOKUPS: _Limit(2, 60.0, 600.0),
}


class Awaited(StoreError):
    """Another process opens the version just now: it is this one's turn after that."""


@dataclass(frozen=True, slots=True)
class _Note:
    """Of an opening that has not ended well.

    began: when, in seconds of a clock that all processes of the machine share.
    """

    path: Path
    process: str
    opening: str
    began: float


class Openings:
    """Those of one job, by all processes that share a folder.

    clock: seconds of any clock that they share, and nobody sets.
    """

    def __init__(self, folder: Path, job: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._shared, self._folder, self._clock = folder, folder / "openings" / job, clock

    @contextlib.contextmanager
    def opening(self, named: Pointer, opening: Opening) -> Iterator[None]:
        """While a version is opened. Raises StoreError for one that ended too many lately, Awaited for one to be waited for."""
        with contextlib.ExitStack() as held:
            if opening is Opening.BESIDE or self._dead(named, opening):
                self._take_turn(named, opening, held)
                self._check(named, opening)
            note = self._folder / f"{_name(named)}-{os.getpid()}-{opening}-{self._clock():.3f}"
            with contextlib.suppress(OSError):  # a full disk keeps nobody from opening
                self._folder.mkdir(parents=True, exist_ok=True)
                note.touch()
            try:
                yield
                self._clear(named, opening)
            finally:
                with contextlib.suppress(OSError):
                    note.unlink(missing_ok=True)

    def _take_turn(self, named: Pointer, opening: Opening, held: contextlib.ExitStack) -> None:
        """Raises Awaited where there is something to serve meanwhile, StoreError where that is still to be found."""
        try:
            holder = held.enter_context(lock(self._folder / f"{_name(named)}.lock", f"opening version {named.version}"))
        except (StoreError, OSError):  # where nobody can take turns, all open it
            return
        if holder is not None:
            sentence = f"Version {named.version} ended a worker that opened it, and another tries it just now."
            raise Awaited(sentence) if opening is Opening.BESIDE else StoreError(sentence)

    def _check(self, named: Pointer, opening: Opening) -> None:
        """Raises StoreError."""
        dead, limit = self._dead(named, opening), LIMITS[opening]
        of_its_kind = [note for note in dead if opening in (Opening.BESIDE, note.opening)]
        if len(of_its_kind) < limit.deaths:
            return
        began = [note.began for note in dead]
        wait = min(max(max(began) - min(began), limit.least), limit.most)
        if self._clock() - max(began) < wait:
            raise StoreError(
                f"Version {named.version} ended the workers that opened it, for want of memory or by a fault: one tries it again "
                f"{counted(round(wait / 60), 'minute')} after the last that did, or a restart of the service does."
            )

    def _dead(self, named: Pointer, opening: Opening) -> list[_Note]:
        """Those of the dead that count for such an opening. Look-ups are left alone for deaths by them only."""
        return [
            note
            for note in self._notes(named)
            if opening is not Opening.LOOKUPS or note.opening == opening
            if _has_ended(note.process) and not os.access(_excuse(self._shared, note.process), os.F_OK)
        ]

    def _clear(self, named: Pointer, opening: Opening) -> None:
        """Only deaths in a row count. That look-ups work says nothing of the rest."""
        for note in self._notes(named):
            if (opening is not Opening.LOOKUPS or note.opening == opening) and _has_ended(note.process):
                with contextlib.suppress(OSError):
                    note.path.unlink()

    def _notes(self, named: Pointer) -> list[_Note]:
        found = list[_Note]()
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if path.name.startswith(f"{_name(named)}-"):
                    process, opening, began = path.name.removeprefix(f"{_name(named)}-").split("-")
                    found.append(_Note(path, process, opening, float(began)))
        return found


def excuse(folder: Path, process: int) -> None:
    """To be called by whoever ends a process, before: that end says nothing of a version."""
    with contextlib.suppress(OSError):
        path = _excuse(folder, str(process))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _excuse(folder: Path, process: str) -> Path:
    return folder / "excused" / process


def _has_ended(process: str) -> bool:
    return not Path("/proc", process).exists()


def _name(named: Pointer) -> str:
    return f"{named.version}-{named.digest}"
