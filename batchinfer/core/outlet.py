"""Lines for stdout and stderr that nobody may read: a thread writes them, and nobody else waits for it.

A pipe whose reader hangs fills up, and then each write to it would block. So lines queue up here, in bounded number; one
that finds no room is dropped and counted.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from queue import Empty, Full, Queue

MOST_WAITING = 4096  # lines
MOST_LINE = 4096  # bytes: a system's pipe takes so many at once or not at all, so that processes do not mix their lines
DRAIN_SECONDS = 0.5


class Outlet:
    """Writes lines to a file descriptor of this process. What a child of a fork writes goes through a thread of its own.

    dropped: how many lines found no room.
    """

    def __init__(self, descriptor: int) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._pid = 0
        self._lock = threading.Lock()
        self._waiting: Queue[bytes] = Queue(MOST_WAITING)

    def write(self, line: str) -> None:
        """Never blocks. line: without its end."""
        if self._pid != os.getpid():
            self._start()
        data = line.encode(errors="backslashreplace")
        try:
            self._waiting.put_nowait(data + b"\n")
        except Full:
            self.dropped += 1

    def drain(self, seconds: float = DRAIN_SECONDS) -> None:
        """Waits until all is written, or for so long."""
        deadline = time.monotonic() + seconds
        while self._pid == os.getpid() and self._waiting.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.005)

    def _start(self) -> None:
        with self._lock:
            if self._pid != os.getpid():  # the first line, or the first after a fork
                self._waiting, self.dropped = Queue(MOST_WAITING), 0
                threading.Thread(target=self._work, args=[self._waiting], name="batchinfer-lines", daemon=True).start()
                self._pid = os.getpid()

    def _work(self, waiting: Queue[bytes]) -> None:
        while True:
            lines = waiting.get()
            taken = 1
            while len(lines) < MOST_LINE // 2:  # several at a time, if they are there
                try:
                    lines += waiting.get_nowait()
                except Empty:
                    break
                taken += 1
            self._put(lines)
            for _ in range(taken):
                waiting.task_done()

    def _put(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # somebody made it non-blocking
                time.sleep(0.05)
            except OSError:  # the reader is gone: so is what was written for it
                self.dropped += data.count(b"\n")
                return


STDOUT, STDERR = Outlet(1), Outlet(2)


class OutletHandler(logging.Handler):
    """Logs to stderr through the outlet."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            STDERR.write(self.format(record))
        except Exception:  # noqa: BLE001 - as logging has it: a broken record is reported, and ends nothing
            self.handleError(record)

    def flush(self) -> None:
        """At the end of the process."""
        STDERR.drain()
