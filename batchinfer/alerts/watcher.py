"""The process that looks now and then what is to be told of the jobs of a data folder, beside what serves and what schedules.

python -m batchinfer.alerts.watcher DATA

It ends when its stdin closes: so it outlives nobody, however that ends. It starts no programs: what names them lies in the data
folder, and whoever can write there could otherwise start anything.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from batchinfer.alerts.delivery import Send
from batchinfer.alerts.desk import AlertDesk
from batchinfer.core.companion import Companion
from batchinfer.core.home import JobData, job_names
from batchinfer.core.own_process import command_of
from batchinfer.core.records import Info

LOOK_SECONDS = 20.0  # between two looks: what goes stale is told within a minute
LAST_SECONDS = 0.5  # that it has to end: what is not told by then, another tells
PATIENT_SECONDS = (
    20.0  # that receivers have: nobody waits for this process, and a slow server is not told again and again
)
MOST_AT_ONCE = 8  # jobs whose receivers are told at the same time


@contextlib.contextmanager
def watching_alerts(start: Callable[[], subprocess.Popen[bytes]]) -> Iterator[None]:
    """Has a process that looks after alerts run beside this one."""
    companion = Companion(start, "The process that looks after alerts")
    try:
        yield
    finally:
        companion.stop(LAST_SECONDS)


def start_watcher(root: Path) -> subprocess.Popen[bytes]:
    """Starts the process, which ends when its stdin is closed."""
    command = command_of("batchinfer.alerts.watcher", str(root))
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)


def trust_nobody() -> None:
    """No job file is known."""


class AlertWatcher:
    """Looks at all jobs of a data folder, round by round."""

    def __init__(
        self,
        root: Path,
        info: Info,
        *,
        trusted: Callable[[], frozenset[str] | None] = trust_nobody,
        send: Send | None = None,
    ) -> None:
        """info: told what happens. trusted: what stands for the receivers that job files name now; None where none are known."""
        self._root, self._info, self._trusted, self._send = root, info, trusted, send
        self._desks: dict[str, AlertDesk] = {}
        self._said: dict[str, str] = {}

    def round(self) -> None:
        """Notes first what is to be told of each job, then tells it: a receiver that hangs holds no other job up for long."""
        try:
            names = job_names(self._root)
        except OSError:  # gone for a while: what serves says so
            return
        self._desks = {name: self._desks.get(name) or self._desk(name) for name in names}
        trusted = self._trusted()
        for name, desk in self._desks.items():
            desk.trusted = trusted
            try:
                desk.look()
                self._said.pop(name, None)
            except Exception as exc:  # noqa: BLE001 - one job must not keep the others from being looked at
                self._complain(name, exc)
        with ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="batchinfer-watcher") as threads:
            list(threads.map(self._deliver, self._to_deliver()))

    def _to_deliver(self) -> list[str]:
        """Jobs of which somebody is to be told: all news first, then a few of those of which telling failed before."""
        tries = {name: self._tries(desk) for name, desk in self._desks.items()}
        due = sorted((count, name) for name, count in tries.items() if count is not None)
        news = [name for count, name in due if not count]
        return news + [name for count, name in due if count][:MOST_AT_ONCE]

    def _tries(self, desk: AlertDesk) -> int | None:
        """How many tries failed; None where nothing is due."""
        try:
            return desk.tries_of_due()
        except Exception:  # noqa: BLE001 - delivering says what is wrong
            return 0

    def _desk(self, name: str) -> AlertDesk:
        data = JobData(self._root, name)
        return AlertDesk(data, self._info, send=self._send)

    def _deliver(self, name: str) -> None:
        try:
            self._desks[name].deliver(seconds=PATIENT_SECONDS)
        except Exception as exc:  # noqa: BLE001 - as above
            self._complain(name, exc)

    def _complain(self, name: str, exc: Exception) -> None:
        said = f"Alerts of {name} cannot be looked after: {exc}"
        if self._said.get(name) != said:
            self._said[name] = said
            self._info(said)


def look_until_closed(watcher: AlertWatcher, seconds: float = LOOK_SECONDS) -> None:
    """Looks every few seconds, until stdin closes."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all processes of who started it: that one closes stdin
        signal.signal(number, signal.SIG_IGN)
    closed = False
    while not closed:
        watcher.round()
        readable, _, _ = select.select([sys.stdin], [], [], seconds)
        closed = bool(readable) and not os.read(sys.stdin.fileno(), 1024)


def print_line(text: str) -> None:
    """Tells on stderr, which is the log of who started the process."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - as said


def main() -> None:
    """Looks at the data folder that is named."""
    look_until_closed(AlertWatcher(Path(sys.argv[1]), print_line))


if __name__ == "__main__":
    main()
