"""Whether workers still get anything done: each counts on, in memory that the main process looks at."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
from pathlib import Path

BEAT_SECONDS = 1.0
LOOKS = 15  # without a beat in between, after which a worker is frozen: what it does itself takes its event loop less
HELD = "Dt"  # states of a thread that a disk, or a debugger, keeps waiting, whatever the worker does
MOST = 255  # of a count, which is a byte; 0 is that of a worker that does not serve yet


class Pulses:
    """Those of all workers. The main process makes it, and the workers are its forks.

    Looks are counted, and not seconds: where the whole machine stood still, so did who looks.
    """

    def __init__(self, workers: int) -> None:
        self._counts = mmap.mmap(-1, 2 * workers)  # two of each, in turn: an old worker may beat on as a new one loads
        self._places = list(range(workers))
        self._seen, self._looks = [0] * workers, [0] * workers
        self._own = 0  # its place

    def born(self, number: int) -> None:
        """In the main process: a new worker has this number. It may take its time until it serves."""
        self._places[number] = (self._places[number] + len(self._seen)) % len(self._counts)
        self._counts[self._places[number]] = self._looks[number] = 0

    def take(self, number: int) -> None:
        """In a new worker: this is its number."""
        self._own = self._places[number]

    def beat(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a worker that serves: once, and then again and again as its event loop gets round to it."""
        self._counts[self._own] = self._counts[self._own] % MOST + 1
        loop.call_later(BEAT_SECONDS, self.beat, loop)

    def look(self, number: int) -> bool:
        """In the main process, once a second: whether a worker is frozen."""
        count = self._counts[self._places[number]]
        moves = not count or count != self._seen[number]
        self._seen[number] = count
        self._looks[number] = 0 if moves else self._looks[number] + 1
        return self._looks[number] >= LOOKS

    def forgive(self, number: int) -> None:
        """In the main process: the worker is not to blame for what it did not do so far."""
        self._looks[number] = 0


def is_held_up(process: int) -> bool:
    """Whether a thread of it waits for a disk, or for a debugger: one may hold up all others."""
    for thread in Path(f"/proc/{process}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            if thread.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0] in HELD:
                return True
    return False
