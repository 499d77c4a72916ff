"""A limit on the time that work on other people's texts may take: patterns, schemas and templates can need years."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType

LEAST_WAIT, RINGS_AGAIN = 0.001, 0.05  # seconds


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
        with alarm:
            yield
    finally:
        alarm.is_set = False  # again: it may have rung just before it was told
        signal.setitimer(signal.ITIMER_REAL, before)
        signal.signal(signal.SIGALRM, handler)


class _Alarm:
    """A handler of the timer's signal.

    is_set: whether the work goes on.

    It may raise anywhere, also where others' code takes any exception for an answer. So it rings on until the work ends.
    """

    def __init__(self, seconds: float) -> None:
        self._ends, self.is_set, self._rang = time.thread_time() + seconds, True, False

    def rings(self, _signal: int, _frame: FrameType | None) -> None:
        """Ends the work, or waits on where a busy machine gave it less time than the clock says."""
        if not self.is_set:
            return
        left = self._ends - time.thread_time()
        if left > 0:
            signal.setitimer(signal.ITIMER_REAL, max(left, LEAST_WAIT))
            return
        signal.setitimer(signal.ITIMER_REAL, RINGS_AGAIN)
        self._rang = True
        raise TookTooLong("it took too long")

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """The work's end. What it gives or raises after a ring that it swallowed is not taken."""
        self.is_set = False
        if self._rang and (exc is None or isinstance(exc, Exception)) and not isinstance(exc, TookTooLong):
            raise TookTooLong("it took too long") from exc
