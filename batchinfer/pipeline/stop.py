"""Ctrl-C, SIGTERM, --max-hours and --budget: requests to end a run, in order or at once."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from batchinfer.core.clock import RUN_STOP_SECONDS
from batchinfer.core.records import Info
from batchinfer.core.signals import forget, meant, raising
from batchinfer.errors import Interrupted, Stopped

SAY_SECONDS = 1.0  # after which a notice is printed, whatever the run waits for
HOW_TO_GO_ON = "Run the same command again to go on from here; nothing committed is lost."


class StopNow(BaseException):
    """Ends the run wherever it is. Not an Exception, so that no `except Exception` on the way catches it."""

    def __init__(self, request: Stopped) -> None:
        super().__init__(str(request))
        self.request = request


class Stop:
    """Whether the run was asked to end. While `graceful`, a first request only sets `reason`.

    After one by a signal, what is in flight has some seconds; then the run ends as by a second signal.
    """

    def __init__(self, max_hours: float | None, info: Info, stop_seconds: float = RUN_STOP_SECONDS) -> None:
        self._bounds: list[tuple[Callable[[], bool], Stopped, str]] = []
        self._info, self._stop_seconds = info, stop_seconds
        self._notice: str | None = None
        self._saying = threading.Lock()
        self._signalled = threading.Event()
        self._late = Stopped(HOW_TO_GO_ON)
        self._is_over = False
        self.graceful = False
        self.is_bound = False
        self.reason: Stopped | None = None
        if max_hours is not None:
            said, end = f"The run reached --max-hours. {HOW_TO_GO_ON}", time.monotonic() + max_hours * 3600
            self.bound(lambda: time.monotonic() > end, said, "--max-hours is reached: finishing what is in flight.")

    def bound(self, is_reached: Callable[[], bool], said: str, notice: str) -> None:
        """Asks the run to end in order once that is so. said: why it ended. notice: printed when it is asked."""
        self._bounds.append((is_reached, Stopped(said), notice))

    def request(self, reason: Stopped, notice: str) -> None:
        """Asks the run to end in order, unless it was asked already."""
        if self.reason is None:
            self.reason, self._notice = reason, notice

    def requested(self) -> bool:
        """Whether no new prompt should be started. Prints a notice the first time."""
        if self.reason is None:
            for is_reached, reason, notice in self._bounds:
                if is_reached():
                    self.is_bound = True
                    self.request(reason, notice)
        self._say()
        return self.reason is not None

    def check(self) -> None:
        """Raises Stopped if it was asked to end: for waits before anything is in flight."""
        if self.requested() and self.reason is not None:
            raise self.reason

    def check_end(self, *, is_done: bool) -> None:
        """Raises Stopped if it was asked to end. is_done: nothing is left to ask, so a bound that was reached is no matter."""
        if self.reason is not None and not (self.is_bound and is_done):
            raise self.reason

    def _say(self) -> None:
        """Prints the notice, if there is one, once."""
        if self._notice is not None:
            with self._saying:
                notice, self._notice = self._notice, None
                if notice is not None:
                    self._info(notice)

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler. It prints nothing: it may have interrupted a print."""
        kind = Interrupted if number == signal.SIGINT else Stopped
        name = _name(number)
        request = kind(f"Stopped by {name}. {HOW_TO_GO_ON}")
        if self.reason is not None or not self.graceful:
            raise raising(StopNow(request))
        late = f"What was in flight did not finish within {self._stop_seconds:g} s of {name}. {HOW_TO_GO_ON}"
        self.reason, self._late = request, kind(late)
        signal.setitimer(signal.ITIMER_REAL, self._stop_seconds)
        self._notice = (
            f"{name}: finishing what is in flight, for up to {self._stop_seconds:g} s; once more stops at once."
        )
        self._signalled.set()

    def on_alarm(self, _number: int, _frame: FrameType | None) -> None:
        """The handler of the time's end. What follows the wait for the engine takes moments and is not cut short."""
        if self.graceful:
            raise raising(StopNow(self._late))

    def watch(self) -> None:
        """Says soon that a signal came, though the run may wait for an engine that gives no sign. For a thread of its own."""
        self._signalled.wait()
        if not self._is_over:
            time.sleep(SAY_SECONDS)
            self._say()

    def close(self) -> None:
        """No signal is awaited any more."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._is_over = True
        self._signalled.set()


def _name(number: int) -> str:
    """What people call a signal."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


@contextlib.contextmanager
def stopping(max_hours: float | None, info: Info, stop_seconds: float = RUN_STOP_SECONDS) -> Iterator[Stop]:
    """Handles SIGINT and SIGTERM for as long as it is open. Raises Stopped or Interrupted for a stop at once."""
    stop = Stop(max_hours, info, stop_seconds)
    handlers = {signal.SIGINT: stop.on_signal, signal.SIGTERM: stop.on_signal, signal.SIGALRM: stop.on_alarm}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    threading.Thread(target=stop.watch, name="batchinfer-stop", daemon=True).start()
    try:
        yield stop
    except BaseException as exc:
        raised = meant(exc)
        if isinstance(raised, StopNow):
            raise raised.request from None
        raise
    finally:
        stop.close()
        forget()
        for number, handler in before.items():
            signal.signal(number, handler)
