"""Starts `batchinfer run` as a process of its own, and says how it ended: no run can take the scheduler with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from batchinfer.core.files import os_errors
from batchinfer.errors import ExitCode
from batchinfer.schedule.agenda import ScheduledJob
from batchinfer.schedule.memory import Memory


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended.

    exit_code: of the command line's contract; negative where a signal killed it.
    said: a sentence for people.
    """

    exit_code: int
    said: str


class Running(Protocol):
    """A run that was started."""

    def ended(self) -> Ended | None:
        """None as long as it goes on."""

    def stop(self) -> None:
        """Asks it to end in order: it commits what is in flight, and the next run goes on from there."""


class Launcher(Protocol):
    """Starts runs."""

    def __call__(self, entry: ScheduledJob) -> Running:
        """Raises OSError or StoreError where none can be started."""


class ProcessLauncher:
    """Starts runs as processes, in sessions of their own: a Ctrl-C in the terminal reaches the scheduler alone."""

    def __init__(self, root: Path, memory: Memory, wake: Callable[[], None]) -> None:
        """root: the data folder. wake: called, from a thread, whenever a run ends."""
        self._root, self._memory, self._wake = root, memory, wake

    def __call__(self, entry: ScheduledJob) -> Running:
        command = [
            sys.executable,
            "-P",
            "-m",
            "batchinfer",
            "--home",
            str(self._root),
            "run",
            str(entry.job.path),
            "--json",
        ]
        if (hours := entry.schedule.max_hours) is not None:
            command += ["--max-hours", f"{hours:g}"]
        path = self._memory.log_of(entry.name)
        with os_errors(path), path.open("wb") as log, tempfile.TemporaryFile() as report:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=report, stderr=log, start_new_session=True, env=os.environ
            )
            return _Process(process, os.dup(report.fileno()), path, self._wake)


class _Process:
    """A run in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], report: int, log: Path, wake: Callable[[], None]) -> None:
        """report: the descriptor of a file with what it printed; it is closed with the run."""
        self._process, self._report, self._log, self._wake = process, report, log, wake
        self._ended: Ended | None = None
        threading.Thread(target=self._wait, name="batchinfer-run", daemon=True).start()

    def _wait(self) -> None:
        code = self._process.wait()
        try:
            with open(self._report, "rb") as file:  # noqa: PTH123 - a descriptor
                file.seek(0)
                printed = file.read()
        except OSError:
            printed = b""
        self._ended = Ended(code, _sentence(code, printed, self._log))
        self._wake()

    def ended(self) -> Ended | None:
        return self._ended

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)


def _sentence(code: int, printed: bytes, log: Path) -> str:
    """What a run came to, by its exit code and the JSON that it printed."""
    try:
        content = json.loads(printed)
    except ValueError:
        content = {}
    content = content if isinstance(content, dict) else {}
    if code == ExitCode.DONE:
        return _done(content) if content else "Done."
    error = content.get("error")
    if isinstance(error, dict) and "message" in error:
        return str(error["message"])
    how = f"signal {-code} ended it" if code < 0 else f"it ended with exit code {code}"
    return f"{how[0].upper()}{how[1:]}; {log} has what it said."


def _done(report: dict[str, Any]) -> str:
    generated, failed = report.get("generated") or 0, report.get("failed") or 0
    work = f"{generated:,} answers made{f', {failed:,} rows failed' if failed else ''}"
    if report.get("version") is not None:
        return f"Version {report['version']} is published: {work}."
    return f"Nothing new: version {report['same_as']} says it all." if report.get("same_as") else f"Done: {work}."
