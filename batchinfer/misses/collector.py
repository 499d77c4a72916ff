"""The process that takes what a server's workers spooled into the jobs' folders: batchinfer.serve.collector HOME SPOOL SERVER.

It ends, after a last round, when its stdin closes: so it outlives no server, however that ends.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from threading import Event, Lock, Thread

from batchinfer.core.files import os_errors
from batchinfer.core.home import JobData
from batchinfer.errors import StoreError
from batchinfer.misses.counter import Miss, day_of, read_spooled, spooled

log = logging.getLogger("batchinfer.serve")
INTERVAL = 5.0  # seconds between two looks
MOST_WAIT = 60.0  # seconds before it is started again, if it goes on dying
MOST_FILES, MOST_BYTES = 1000, 64 << 20  # that wait for one job while they cannot be taken in


def start(data: Path, spool: Path, server: str) -> subprocess.Popen[bytes]:
    """Starts the process. Close its stdin when all workers have spooled for the last time, then wait for it.

    spool: a folder of this server alone, with one folder a job in it. server: its name, the same for each start that
    uses this spool folder again.
    """
    command = [sys.executable, "-m", "batchinfer.misses.collector", str(data), str(spool), server]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


class Supervisor:
    """Starts the process, and starts it again where it dies: at once, then after ever longer waits."""

    def __init__(self, data: Path, spool: Path, server: str) -> None:
        self._start = partial(start, data, spool, server)
        self._process = self._start()
        self._turn, self._stopping = Lock(), Event()
        Thread(target=self._watch, name="collector", daemon=True).start()

    def _watch(self) -> None:
        wait = 0.0
        while True:
            code = self._process.wait()
            if self._stopping.wait(wait):
                return
            with self._turn:
                if self._stopping.is_set():
                    return
                log.warning("The collector of misses ended with the exit code %d: it is started again.", code)
                self._start_again()
            wait = min(2 * wait + 1, MOST_WAIT)

    def stop(self, seconds: float) -> None:
        """Lets it take in what the workers left, and waits for it so long."""
        with self._turn:
            self._stopping.set()
            if self._process.poll() is not None:
                self._start_again()
        self._close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start_again(self) -> None:
        self._close()
        self._process = self._start()

    def _close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()


class Collector:
    """Takes spooled misses in, round by round; what cannot be taken in waits for the next round."""

    def __init__(self, data: Path, spool: Path, server: str) -> None:
        self._data, self._spool, self._server = data, spool, server
        self._told: dict[str, str] = {}  # by job: the fault that was told last

    def round(self) -> None:
        """Takes in all that lies in the spool folder. A fault is told once on stderr, until it has passed."""
        for folder in self._jobs():
            try:
                with os_errors(folder):
                    self._take_in(folder)
                self._told.pop(folder.name, None)
            except StoreError as exc:
                self._tell(folder.name, str(exc))
                with contextlib.suppress(OSError):
                    _bound(folder)

    def _jobs(self) -> list[Path]:
        try:
            return sorted(path for path in self._spool.iterdir() if path.is_dir())
        except FileNotFoundError:  # nothing was spooled yet
            return []

    def _take_in(self, folder: Path) -> None:
        for day, paths in groupby(spooled(folder), day_of):
            from batchinfer.misses.log import merge  # brings pyarrow: only where there is something to take in

            counted = dict(self._read(list(paths)))
            merge(JobData(self._data, folder.name), day, self._server, counted)
            for name in counted:
                (folder / name).unlink()

    def _read(self, paths: list[Path]) -> Iterator[tuple[str, list[Miss]]]:
        """The files and what they hold. A damaged one (the machine lost power) is told and removed."""
        for path in paths:
            try:
                yield path.name, read_spooled(path)
            except StoreError as exc:
                _say(str(exc))
                path.unlink()

    def _tell(self, job: str, fault: str) -> None:
        if self._told.get(job) != fault:
            self._told[job] = fault
            _say(f"The misses of {job} wait: {fault}")


def _bound(folder: Path) -> None:
    """Removes the oldest files of a job, so that those that wait fill no disk."""
    size = 0
    for number, path in enumerate(reversed(spooled(folder)), 1):
        size += path.stat().st_size
        if number > MOST_FILES or size > MOST_BYTES:
            path.unlink()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - this process speaks to the server's log only


def main(arguments: list[str] | None = None) -> None:
    """Looks every few seconds, until stdin closes."""
    parser = argparse.ArgumentParser(prog="batchinfer.misses.collector")
    parser.add_argument("data", type=Path)
    parser.add_argument("spool", type=Path)
    parser.add_argument("server")
    parser.add_argument("--interval", type=float, default=INTERVAL)
    given = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all of a server's processes: the workers spool once more
        signal.signal(number, signal.SIG_IGN)
    collector = Collector(given.data, given.spool, given.server)
    closed = False
    while not closed:
        readable, _, _ = select.select([sys.stdin], [], [], given.interval)
        closed = bool(readable) and not os.read(sys.stdin.fileno(), 1024)
        collector.round()


if __name__ == "__main__":
    main()
