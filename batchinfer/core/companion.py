"""A process beside this one, which is started again whenever it dies, and ends when its stdin closes."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from threading import Event, Lock, Thread

log = logging.getLogger("batchinfer")
MOST_WAIT = 60.0  # seconds before it is started again, if it goes on dying


class Companion:
    """Starts the process, and restarts it when it dies: at once, then after ever longer waits."""

    def __init__(self, start: Callable[[], subprocess.Popen[bytes]], name: str) -> None:
        """start: with a pipe as its stdin, and none for what it prints. name: what it is, at the beginning of a sentence."""
        self._start, self._name = start, name
        self._process = self._start()
        self._turn, self._stopping = Lock(), Event()
        Thread(target=self._watch, name="batchinfer-companion", daemon=True).start()

    def _watch(self) -> None:
        wait = 0.0
        while True:
            code = self._process.wait()
            if self._stopping.wait(wait):
                return
            with self._turn:
                if self._stopping.is_set():
                    return
                log.warning("%s ended with the exit code %d: it is started again.", self._name, code)
                self._restart()
            wait = min(2 * wait + 1, MOST_WAIT)

    def stop(self, seconds: float, *, again: bool = False) -> None:
        """Lets it end, and waits so many seconds for it. again: one that has just died is started for a last time."""
        with self._turn:
            self._stopping.set()
            if again and self._process.poll() is not None:
                self._restart()
        self._close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _restart(self) -> None:
        self._close()
        self._process = self._start()

    def _close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
