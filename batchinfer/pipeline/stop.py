"""Ctrl-C, SIGTERM and --max-hours: requests to end a run, in order or at once."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType

from batchinfer.core.records import Info
from batchinfer.errors import Interrupted, Stopped

HOW_TO_GO_ON = "Run the same command again to go on from here; nothing committed is lost."


class StopNow(BaseException):
    """Ends the run wherever it is. Not an Exception, so that no `except Exception` on the way catches it."""

    def __init__(self, request: Stopped) -> None:
        super().__init__(str(request))
        self.request = request


class Stop:
    """Whether the run was asked to end. While `graceful`, a first request only sets `reason`."""

    def __init__(self, max_hours: float | None, info: Info) -> None:
        self._deadline = None if max_hours is None else time.monotonic() + max_hours * 3600
        self._info = info
        self._notice: str | None = None
        self.graceful = False
        self.reason: Stopped | None = None

    def request(self, reason: Stopped, notice: str) -> None:
        """Asks the run to end in order, unless it was asked already."""
        if self.reason is None:
            self.reason, self._notice = reason, notice

    def requested(self) -> bool:
        """Whether no new prompt should be started. Prints a notice the first time."""
        if self.reason is None and self._deadline is not None and time.monotonic() > self._deadline:
            self.reason = Stopped(f"The run reached --max-hours. {HOW_TO_GO_ON}")
            self._notice = "--max-hours is reached: finishing what is in flight."
        if self._notice is not None:
            self._info(self._notice)
            self._notice = None
        return self.reason is not None

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler. It prints nothing: it may have interrupted a print."""
        kind = Interrupted if number == signal.SIGINT else Stopped
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        request = kind(f"Stopped by {name}. {HOW_TO_GO_ON}")
        if self.reason is not None or not self.graceful:
            raise StopNow(request)
        self.reason = request
        self._notice = f"{name}: finishing what is in flight; once more stops at once."


@contextlib.contextmanager
def stopping(max_hours: float | None, info: Info) -> Iterator[Stop]:
    """Handles SIGINT and SIGTERM for as long as it is open. Raises Stopped or Interrupted for a stop at once."""
    stop = Stop(max_hours, info)
    before = {number: signal.signal(number, stop.on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    except StopNow as exc:
        raise exc.request from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
