"""The process that merges what a server's workers spooled, and what they answered, into the jobs' folders.

python -m batchinfer.misses.collector DATA SPOOL METRICS SERVER

It ends, after a last round, when its stdin closes: so it outlives no server, however that ends.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from batchinfer.core.files import os_errors
from batchinfer.core.home import JobData
from batchinfer.core.own_process import command_of
from batchinfer.core.spared import spare_pandas
from batchinfer.errors import StoreError
from batchinfer.misses.counter import Miss, day_of, read_spooled, spooled
from batchinfer.misses.served import ServedCounter

INTERVAL = 5.0  # seconds between two looks
MOST_FILES, MOST_BYTES = 1000, 64 << 20  # that wait for one job while they cannot be merged


def start(data: Path, spool: Path, metrics: Path, server: str) -> subprocess.Popen[bytes]:
    """Starts the process. Close its stdin when all workers have spooled for the last time, then wait for it.

    spool: a folder of this server alone, with one folder a job in it. metrics: one with its workers' counters.
    server: its name, the same for each start that uses this spool folder again.
    """
    command = command_of("batchinfer.misses.collector", str(data), str(spool), str(metrics), server)
    return subprocess.Popen(command, stdin=subprocess.PIPE)


class Collector:
    """Merges spooled misses, round by round; what cannot be merged waits for the next round."""

    def __init__(self, data: Path, spool: Path, server: str) -> None:
        self._data, self._spool, self._server = data, spool, server
        self._reported: dict[str, str] = {}  # by job: the fault that was reported last

    def round(self) -> None:
        """Merges all that lies in the spool folder. A fault is reported once on stderr, until it has passed."""
        for folder in self._jobs():
            try:
                with os_errors(folder):
                    self._merge(folder)
                self._reported.pop(folder.name, None)
            except StoreError as exc:
                self._report(folder.name, str(exc))
                with contextlib.suppress(OSError):
                    _bound(folder)

    def _jobs(self) -> list[Path]:
        try:
            return sorted(path for path in self._spool.iterdir() if path.is_dir())
        except FileNotFoundError:  # nothing was spooled yet
            return []

    def _merge(self, folder: Path) -> None:
        data = JobData(self._data, folder.name)
        if data.is_removed:  # its misses with it
            shutil.rmtree(folder)
            return
        for day, paths in groupby(spooled(folder), day_of):
            from batchinfer.misses.log import merge  # brings pyarrow: only where there is something to merge

            counted = dict(self._read(list(paths)))
            merge(data, day, self._server, counted)
            for name in counted:
                (folder / name).unlink()

    def _read(self, paths: list[Path]) -> Iterator[tuple[str, list[Miss]]]:
        """The files and what they hold. A damaged one (the machine lost power) is reported and removed."""
        for path in paths:
            try:
                yield path.name, read_spooled(path)
            except StoreError as exc:
                _print(str(exc))
                path.unlink()

    def _report(self, job: str, fault: str) -> None:
        if self._reported.get(job) != fault:
            self._reported[job] = fault
            _print(f"The misses of {job} are not stored yet: {fault}")


def _bound(folder: Path) -> None:
    """Removes the oldest files of a job, so that those that wait do not fill the disk."""
    size = 0
    for number, path in enumerate(reversed(spooled(folder)), 1):
        size += path.stat().st_size
        if number > MOST_FILES or size > MOST_BYTES:
            path.unlink()


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the log of the server is this process's stderr


def main(arguments: list[str] | None = None) -> None:
    """Looks every few seconds, until stdin closes."""
    parser = argparse.ArgumentParser(prog="batchinfer.misses.collector")
    parser.add_argument("data", type=Path)
    parser.add_argument("spool", type=Path)
    parser.add_argument("metrics", type=Path)
    parser.add_argument("server")
    parser.add_argument("--interval", type=float, default=INTERVAL)
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all of a server's processes: the workers spool once more
        signal.signal(number, signal.SIG_IGN)
    collector = Collector(options.data, options.spool, options.server)
    answers = ServedCounter(options.data, options.metrics, options.server, _print)
    closed = False
    while not closed:
        readable, _, _ = select.select([sys.stdin], [], [], options.interval)
        closed = bool(readable) and not os.read(sys.stdin.fileno(), 1024)
        collector.round()
        answers.round()


if __name__ == "__main__":
    spare_pandas()
    main()
