"""The main process: it starts a worker again whenever one dies, however often that is, and says so.

granian gives up when a worker dies twice within six seconds. Here a worker that died young waits before it serves again,
longer each time, and the service goes on. The wait is the new process's own, so that other workers are not held up.
A worker that lives and gets nothing done would hold the requests that it took for ever: it is killed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from granian import Granian

from batchinfer.core.own_process import end_with_parent
from batchinfer.serve.pulses import BEAT_SECONDS, LOOKS, Pulses, is_held_up
from batchinfer.serve.wake import Wake
from batchinfer.serve.worker_deaths import WorkerDeaths
from batchinfer.versions.openings import excuse

log = logging.getLogger("batchinfer.serve")
YOUNG_SECONDS = 30.0  # a worker that dies sooner is held back, longer each time
ENDED_BY_OTHERS = {0, -signal.SIGTERM}  # codes of ends that somebody asked for
FIRST_WAIT, LONGEST_WAIT = 0.25, 8.0  # seconds


class BackOff:
    """How long each worker waits before it serves again."""

    def __init__(self) -> None:
        self._born: dict[int, float] = {}
        self._waits: dict[int, float] = {}

    def born(self, number: int, now: float) -> None:
        """now: any clock's seconds."""
        self._born[number] = now

    def wait_of(self, number: int, now: float) -> float:
        """Of a worker that has just died."""
        lived = now - self._born.get(number, now)
        before = self._waits.get(number)
        old = before is None or lived > YOUNG_SECONDS + before
        wait = 0.0 if before is None or old else min(max(FIRST_WAIT, 2 * before), LONGEST_WAIT)
        self._waits[number] = wait
        return wait


class WorkerSupervisor(Granian):  # type: ignore[misc,valid-type] # granian picks the class by platform
    """granian's main process, but it never gives up a worker.

    pulses: those of its workers, for what they load.
    """

    def __init__(self, *args: Any, run_folder: Path, **kwargs: Any) -> None:
        """run_folder: of the server, where workers read how many died."""
        super().__init__(*args, **kwargs)
        self.main_loop_interrupt = Wake()  # which granian's handlers and watchers set
        self._run_folder = run_folder
        self._back_off = BackOff()
        self.pulses = Pulses(self.workers)
        self._deaths, self._waits = 0, dict[str, float]()

    def _spawn_worker(self, idx: int, target: Any, callback_loader: Callable[[], Any]) -> Any:
        """Every worker begins here, the first ones and those in place of others."""
        self._back_off.born(idx, time.monotonic())
        self.pulses.born(idx)
        return super()._spawn_worker(idx, target, partial(self._begin, idx, callback_loader))

    def _begin(self, number: int, load: Callable[[], Any]) -> Any:
        """Runs in the new process, which began with the main process' handlers: the flag that they set is in its own memory.

        Until granian's handlers for workers are there, SIGTERM ends the process; it has nothing in flight yet. Otherwise
        the signal would be lost, and the main process would wait for this worker as long as it waits for any. Ctrl-C
        reaches workers too: they leave it to the main process. A worker whose main process dies would hold the port.
        """
        end_at_once()
        end_with_parent(signal.SIGTERM)
        if self.interrupt_signal or os.getppid() != self.pid:
            sys.exit(0)
        self.pulses.take(number)
        return load()

    def _serve_loop(self, spawn_target: Any, target_loader: Any) -> None:
        """Instead of granian's. A death that comes while another is seen to is not overlooked."""
        while not self.interrupt_signal:
            if not self.main_loop_interrupt.wait(BEAT_SECONDS):
                self._end_frozen()
            self.main_loop_interrupt.clear()
            while self.interrupt_children and not self.interrupt_signal:
                self._again(self.interrupt_children.pop(0), spawn_target, target_loader)
            if self.reload_signal:
                self._reload(spawn_target, target_loader)

    def _end_frozen(self) -> None:
        """Kills workers that get nothing done: they are started again as others that died.

        Not those whom a disk keeps waiting: they answer once it does, and all of them may wait for the same one.
        """
        for worker in self.wrks:
            if not self.pulses.look(worker.idx):
                continue
            if is_held_up(worker.inner.pid):
                self.pulses.forgive(worker.idx)
            else:
                log.error("Worker %d got nothing done for %d s and is killed.", worker.idx + 1, LOOKS * BEAT_SECONDS)
                self.pulses.born(worker.idx)  # so that this is said once
                excuse(self._run_folder, worker.inner.pid)
                worker.inner.kill()

    def _reload(self, spawn_target: Any, target_loader: Any) -> Any:
        """Starts all of them again; what the old ones were opening did not end them."""
        for worker in self.wrks:
            excuse(self._run_folder, worker.inner.pid)
        return super()._reload(spawn_target, target_loader)

    def _again(self, number: int, spawn_target: Any, target_loader: Any) -> None:
        """Starts a worker in the place of one that died."""
        dead = self.wrks[number].inner
        if dead.exitcode in ENDED_BY_OTHERS:
            excuse(self._run_folder, dead.pid)
        wait = self._back_off.wait_of(number, time.monotonic())
        self._deaths += 1
        self._waits[str(number)] = time.time() + wait
        with contextlib.suppress(OSError):
            WorkerDeaths(self._deaths, self._waits).write(self._run_folder)
        held = f" It died young again, and waits {wait:g} s before it serves." if wait else ""
        log.error("Worker %d died and is started again.%s", number + 1, held)
        self._respawn_workers([number], spawn_target, partial(_held_back, target_loader, wait))

    def shutdown(self, exit_code: int = 0) -> None:
        """A worker that died is no failure of the service: it was started again, or ended by the signal that all were sent."""
        with contextlib.suppress(SystemExit):
            super().shutdown()
        if exit_code:
            sys.exit(exit_code)


def end_at_once() -> dict[int, Any]:
    """Lets SIGTERM end this process, and Ctrl-C do nothing; returns the handlers that were there."""
    return {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    }


def restore(handlers: dict[int, Any]) -> None:
    """What `end_at_once` took away. To be called by the loop that serves: before it runs, what the handlers hear is lost."""
    for number, handler in handlers.items():
        signal.signal(number, handler)
        signal.siginterrupt(number, False)  # noqa: FBT003 - as event loops set it


def _held_back(load: Callable[[], Any], wait: float) -> Any:
    """Runs in the new process."""
    time.sleep(wait)
    return load()
