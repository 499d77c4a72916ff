"""A limit on the time that work on other people's texts may take: patterns, schemas and templates can need years."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType


class TookTooLong(Exception):
    """The work was ended since its time was up."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TookTooLong in work that keeps this thread's processor busy for longer; waiting and other threads do not count.

    Python can be interrupted in its main thread only, which is where runs and imports work; elsewhere there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    alarm = _Alarm(seconds)
    handler = signal.signal(signal.SIGALRM, alarm.rings)
    before = signal.setitimer(signal.ITIMER_REAL, seconds)[0]
    try:
        yield
    finally:
        alarm.is_set = False
        signal.setitimer(signal.ITIMER_REAL, before)
        signal.signal(signal.SIGALRM, handler)


class _Alarm:
    """A handler of the timer's signal.

    is_set: whether the work goes on.
    """

    def __init__(self, seconds: float) -> None:
        self._ends, self.is_set = time.thread_time() + seconds, True

    def rings(self, _signal: int, _frame: FrameType | None) -> None:
        """Ends the work, or waits on where a busy machine gave it less time than the clock says."""
        if not self.is_set:
            return
        left = self._ends - time.thread_time()
        if left <= 0:
            raise TookTooLong("it took too long")
        signal.setitimer(signal.ITIMER_REAL, max(left, 0.001))
