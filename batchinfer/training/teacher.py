"""Drives the training process: hands it its course, shows how it goes, and has it stop in order."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from batchinfer.core.own_process import command_of, environment
from batchinfer.errors import ModelError, Stopped
from batchinfer.training import trainer
from batchinfer.training.records import Course, Scored, Step, Trained

POLL_SECONDS = 0.5
END_SECONDS = 5.0


class StopAsked(Protocol):
    """Whether a person asked for the end. While `graceful`, a first request only sets `reason`."""

    graceful: bool
    reason: Stopped | None

    def requested(self) -> bool: ...


class TrainingConsole(Protocol):
    """Who sees how a training goes."""

    def info(self, text: str) -> None: ...

    def step(self, step: Step) -> None: ...

    def scored(self, scored: Scored) -> None: ...


def teach(
    course: Course, log: Path, console: TrainingConsole, stop: StopAsked, module: str = trainer.__name__
) -> Trained:
    """Has a process train an adapter into the course's draft folder. module: what runs in it.

    Raises ModelError for what cannot be trained, Stopped if it was asked to end or died; then a checkpoint is kept.
    """
    with _process(course, log, module) as (process, pipe):
        stop.graceful = True
        told = False
        try:
            while True:
                if stop.requested() and not told:
                    told = True
                    with contextlib.suppress(OSError):
                        pipe.send(("stop", None))
                if not pipe.poll(POLL_SECONDS):
                    continue
                try:
                    kind, content = pipe.recv()
                except (EOFError, OSError):
                    raise _died(process, log, course) from None
                if kind == "done" and stop.reason is None:
                    learned: Trained = content
                    return learned
                _heed(kind, content, console, stop, log)
        finally:
            stop.graceful = False


def _heed(kind: str, content: Any, console: TrainingConsole, stop: StopAsked, log: Path) -> None:
    """Shows a message, or raises what it says."""
    if kind == "note":
        console.info(content)
    elif kind == "step":
        console.step(content)
    elif kind == "scored":
        console.scored(content)
    elif kind == "failed":
        raise ModelError(f"{content} What was printed meanwhile is in {log}.")
    elif kind in ("stopped", "done"):
        raise stop.reason or Stopped("The training was stopped. Run the same command again to go on from here.")


def _died(process: subprocess.Popen[bytes], log: Path, course: Course) -> Stopped:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    memory = (
        " It may have had too little memory: lower finetune.batch." if process.returncode == -signal.SIGKILL else ""
    )
    kept = (
        "Run the same command again to go on from the last checkpoint."
        if course.checkpoint.exists()
        else "Run the command again."
    )
    return Stopped(
        f"The training process died (exit code {process.returncode}).{memory} What it printed is in {log}. {kept}"
    )


@contextlib.contextmanager
def _process(course: Course, log: Path, module: str) -> Iterator[tuple[subprocess.Popen[bytes], Connection]]:
    """The training process and our end of its pipe. In a session of its own the terminal's Ctrl-C does not reach it."""
    ours, theirs = multiprocessing.Pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # nor before it has that session
    try:
        with log.open("wb") as file:
            process = subprocess.Popen(
                command_of(module, str(theirs.fileno())), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                stdout=file, stderr=file, start_new_session=True, env=environment(),
            )  # fmt: skip
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    theirs.close()
    try:
        ours.send(course)
        yield process, ours
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        ours.close()
