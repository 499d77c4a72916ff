"""The process that looks now and then what is to be told of the jobs of a data folder, beside what serves and what schedules.

python -m batchinfer.alerts.watcher DATA [--commands]

It ends when its stdin closes: so it outlives nobody, however that ends.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from batchinfer.alerts.delivery import Send
from batchinfer.alerts.desk import AlertDesk
from batchinfer.core.companion import Companion
from batchinfer.core.home import JobData, job_names
from batchinfer.core.records import Info

LOOK_SECONDS = 20.0  # between two looks: what goes stale is told within a minute
LAST_SECONDS = 0.5  # that it has to end: what is not told by then, another tells
MOST_AT_ONCE = 8  # jobs whose receivers are told at the same time


@contextlib.contextmanager
def watching_alerts(root: Path, *, runs_commands: bool = False) -> Iterator[None]:
    """Has the process run beside this one.

    runs_commands: whether it starts the programs that rules name: what names them lies in the data folder, so who only
    serves that does not.
    """
    companion = Companion(partial(_start, root, runs_commands=runs_commands), "The process that looks after alerts")
    try:
        yield
    finally:
        companion.stop(LAST_SECONDS)


def _start(root: Path, *, runs_commands: bool) -> subprocess.Popen[bytes]:
    commands = ["--commands"] if runs_commands else []
    command = [sys.executable, "-m", "batchinfer.alerts.watcher", str(root), *commands]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)


class AlertWatcher:
    """Looks at all jobs of a data folder, round by round."""

    def __init__(self, root: Path, info: Info, *, runs_commands: bool, send: Send | None = None) -> None:
        """info: told what happens."""
        self._root, self._info, self._runs_commands, self._send = root, info, runs_commands, send
        self._desks: dict[str, AlertDesk] = {}
        self._said: dict[str, str] = {}

    def round(self) -> None:
        """Notes first what is to be told of each job, then tells it: a receiver that hangs holds no other job up for long."""
        try:
            names = job_names(self._root)
        except OSError:  # gone for a while: what serves says so
            return
        self._desks = {name: self._desks.get(name) or self._desk(name) for name in names}
        for name, desk in self._desks.items():
            try:
                desk.look()
                self._said.pop(name, None)
            except Exception as exc:  # noqa: BLE001 - one job must not keep the others from being looked at
                self._complain(name, exc)
        with ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="batchinfer-watcher") as threads:
            list(threads.map(self._deliver, self._desks))

    def _desk(self, name: str) -> AlertDesk:
        data = JobData(self._root, name)
        return AlertDesk(data, self._info, runs_commands=self._runs_commands, send=self._send)

    def _deliver(self, name: str) -> None:
        try:
            self._desks[name].deliver()
        except Exception as exc:  # noqa: BLE001 - as above
            self._complain(name, exc)

    def _complain(self, name: str, exc: Exception) -> None:
        said = f"Alerts of {name} cannot be looked after: {exc}"
        if self._said.get(name) != said:
            self._said[name] = said
            self._info(said)


def main(arguments: list[str] | None = None) -> None:
    """Looks every few seconds, until stdin closes."""
    parser = argparse.ArgumentParser(prog="batchinfer.alerts.watcher")
    parser.add_argument("data", type=Path)
    parser.add_argument("--commands", action="store_true")
    parser.add_argument("--interval", type=float, default=LOOK_SECONDS)
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all processes of who started it: that one closes stdin
        signal.signal(number, signal.SIG_IGN)
    watcher = AlertWatcher(options.data, _print, runs_commands=options.commands)
    closed = False
    while not closed:
        watcher.round()
        readable, _, _ = select.select([sys.stdin], [], [], options.interval)
        closed = bool(readable) and not os.read(sys.stdin.fileno(), 1024)


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the log of who started it is this process's stderr


if __name__ == "__main__":
    main()
