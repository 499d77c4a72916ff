"""Threads beside the event loop: a few for long work, which clients may queue up for, and one for each thing that is kept up to date."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from batchinfer.core.faults import LastingFaults
from batchinfer.core.http_limits import MATCH_WAIT_SECONDS, MATCH_WAITING
from batchinfer.serve.problems import Problem

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger("batchinfer.serve")
THREADS = 2  # one long request must not keep all others waiting; Python runs one of them at a time anyway
SWITCH_SECONDS = 0.001  # after which a thread lets another one run: the event loop waits so long for each that works
AGAIN = (("retry-after", "1"),)
WORK_SECONDS, REST_SECONDS = 0.004, 0.0003


class Beside:
    """Does work in threads of its own, and refuses it when too much waits already."""

    def __init__(self, threads: int = THREADS, waiting: int = MATCH_WAITING, done: str = "matched") -> None:
        """waiting: how many may wait for a thread. done: the word for what is done, in refusals."""
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="batchinfer-beside")
        self._done = done
        self._most = threads + waiting
        self._under_way = 0

    async def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Raises Problem if the work does not begin soon."""
        if self._under_way >= self._most:
            raise Problem("busy", f"Too much waits to be {self._done}: ask again in a moment.", AGAIN)
        began = time.monotonic()

        def soon() -> T:
            if time.monotonic() - began > MATCH_WAIT_SECONDS:
                raise Problem("busy", f"It waited for {MATCH_WAIT_SECONDS:g} s to be {self._done}: ask again.", AGAIN)
            return work(*args, **kwargs)

        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, soon)
        finally:
            self._under_way -= 1

    def close(self) -> None:
        """Begins nothing more."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class Rests:
    """Short rests in long work, in which the event loop gets Python's lock: threads that work on take it from each other."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def __call__(self) -> None:
        """Rests, if it has worked for some milliseconds."""
        if time.monotonic() - self._since > WORK_SECONDS:
            time.sleep(REST_SECONDS)
            self._since = time.monotonic()


async def repeat(work: Callable[[], None], seconds: float, done: asyncio.Event | None = None) -> None:
    """Does some work again and again, in a thread that nothing else waits for; `done` is set after the first time.

    What keeps it from being done is logged once, until it is done.
    """
    own = ThreadPoolExecutor(1, thread_name_prefix=f"batchinfer-{getattr(work, '__name__', 'work')}")
    faults = LastingFaults(log, "The service could not be brought up to date")
    try:
        while True:
            try:
                await asyncio.get_running_loop().run_in_executor(own, work)
                faults.over()
                if done is not None:
                    done.set()
            except Exception as exc:  # noqa: BLE001 - whatever it was, it may pass; the service goes on with what it has
                faults.note(exc)
            await asyncio.sleep(seconds)
    finally:
        own.shutdown(wait=False, cancel_futures=True)
