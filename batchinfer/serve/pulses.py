"""Whether workers still get anything done: each counts on, in memory that the main process looks at."""

from __future__ import annotations

import asyncio
import mmap

BEAT_SECONDS = 1.0
LOOKS = (
    15  # without a beat in between, after which a worker is frozen; nothing that it may do takes its event loop as long
)
MOST = 255  # of a count, which is a byte; 0 is that of a worker that does not serve yet


class Pulses:
    """Those of all workers. The main process makes it, and the workers are its forks.

    Looks are counted, and not seconds: where the whole machine stood still, so did who looks.
    """

    def __init__(self, workers: int) -> None:
        self._counts = mmap.mmap(-1, workers)
        self._seen, self._looks = [0] * workers, [0] * workers
        self._own = 0

    def born(self, number: int) -> None:
        """In the main process: a new worker has this number. It may take its time until it serves."""
        self._counts[number] = self._looks[number] = 0

    def take(self, number: int) -> None:
        """In a new worker: this is its number."""
        self._own = number

    def beat(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a worker that serves: once, and then again and again as its event loop gets round to it."""
        self._counts[self._own] = self._counts[self._own] % MOST + 1
        loop.call_later(BEAT_SECONDS, self.beat, loop)

    def look(self, number: int) -> bool:
        """In the main process, once a second: whether a worker is frozen."""
        count = self._counts[number]
        moves = not count or count != self._seen[number]
        self._seen[number] = count
        self._looks[number] = 0 if moves else self._looks[number] + 1
        return self._looks[number] >= LOOKS
