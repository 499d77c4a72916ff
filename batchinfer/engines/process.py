"""Engine processes: what the pool needs of one, wherever it runs, and those that run on this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import platform
import queue
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Protocol

from batchinfer.core.own_process import command_of, environment
from batchinfer.engines import child
from batchinfer.engines.devices import Placement
from batchinfer.engines.protocol import EngineConfig

EXIT_SECONDS = 5.0  # for an engine whose pipe has ended to end, too


class EngineEnded(Exception):
    """An engine process is gone. Its text says how that came, such as: died (exit code -9).

    code: its exit code, if it is known; that of a signal is below 0.
    """

    def __init__(self, said: str, code: int | None = None) -> None:
        super().__init__(said)
        self.code = code


class EngineLost(EngineEnded):
    """The machine of an engine process is gone, or the way to it: nothing that it worked on is to blame."""


class EngineProcess(Protocol):
    """An engine process, and the way to it. `child.py` has the messages.

    ready: a message from it can be waited for there: once that is ready, all of it is there.
    node: the name of the machine that it runs on; None while it has none yet.
    """

    ready: Connection
    node: str | None

    def send(self, kind: str, content: Any = None) -> None:
        """Hands it a message. Nothing happens if it is gone: receiving says so."""

    def receive(self) -> tuple[str, Any]:
        """The next message from it. Raises EngineEnded."""

    def wait(self) -> object:
        """Gives it some seconds to end by itself."""

    def kill(self) -> None:
        """Ends it, and whatever it started."""


Launch = Callable[[str, EngineConfig, Placement, Path], EngineProcess]
"""Starts an engine process, which loads at once: module:class of what runs in it, what that loads, its place, a file to print to."""


class Inbox:
    """What comes through a pipe, read by a thread, so that nobody waits for the rest of a message, as of one that froze within it.

    bell: can be read from once for each message that is there, and at the end.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._messages = pipe, queue.SimpleQueue[bytes]()
        self.bell, self._rope = multiprocessing.Pipe(duplex=False)
        self._reader = threading.Thread(target=self._read, name="batchinfer-inbox", daemon=True)
        self._reader.start()

    def next(self) -> Any:
        """The next message, once it is there. Raises EOFError or OSError after the last, and EngineEnded for what is none."""
        self.bell.recv_bytes()
        try:
            return ForkingPickler.loads(self._messages.get())
        except Exception as exc:  # as `pickle` says, whatever what is in it may raise
            raise EngineEnded(f"sent what cannot be read ({type(exc).__name__}: {exc})") from exc

    def _read(self) -> None:
        with self._rope, contextlib.suppress(EOFError, OSError):
            while True:
                self._messages.put(self._pipe.recv_bytes())
                self._rope.send_bytes(b"!")

    def close(self) -> None:
        """Has nobody wait at either end of the pipe any more, whatever other process holds one."""
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._pipe.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)
        self.bell.close()
        self._reader.join()


class LocalProcess:
    """An `EngineProcess` that is a child of this one."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: Connection) -> None:
        self.process, self.pipe, self.ready = process, pipe, pipe
        self.node: str | None = platform.node()

    def send(self, kind: str, content: Any = None) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send((kind, content))

    def receive(self) -> tuple[str, Any]:
        try:
            kind, content = self._next()
        except (EOFError, OSError) as exc:
            code = self.wait()
            raise EngineEnded(f"died (exit code {code})", code) from exc
        return kind, content

    def _next(self) -> Any:
        return self.pipe.recv()

    def wait(self) -> int | None:
        """Its exit code, once it has ended by itself; None if it has not soon."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(EXIT_SECONDS)
        return None

    def kill(self) -> None:
        """Ends it and the processes that vLLM started below it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._close()

    def _close(self) -> None:
        self.pipe.close()


class EngineChild(LocalProcess):
    """One that threads write to and read from: nobody waits for one that hangs, and does not read, or sent half a message."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: Connection) -> None:
        super().__init__(process, pipe)
        self._inbox = Inbox(pipe)
        self.ready = self._inbox.bell
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="batchinfer-engine", daemon=True)
        self._writer.start()

    def send(self, kind: str, content: Any = None) -> None:
        """Raises what `pickle` does of what cannot be sent."""
        self._outbox.put(bytes(ForkingPickler.dumps((kind, content))))

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # it is gone: receiving says so
            while (message := self._outbox.get()) is not None:
                self.pipe.send_bytes(message)

    def _next(self) -> Any:
        return self._inbox.next()

    def _close(self) -> None:
        self._inbox.close()
        self._outbox.put(None)
        self._writer.join()
        super()._close()  # no thread uses it any more: its number may be that of another file from now on


def launch_here(driver: str, config: EngineConfig, placement: Placement, log: Path) -> EngineChild:
    """`Launch` on this machine. log: file for all that the process prints."""
    started = start_beside(child.__name__)
    process = EngineChild(started.process, started.pipe)
    process.send("load", (driver, config, placement, log))
    return process


def start_beside(module: str, log: Path | None = None) -> LocalProcess:
    """A process of this machine that runs a module, given the number of its end of a pipe.

    log: file that what it prints is added to; the module sees to that itself where none is given.
    """
    # A plain process and not one of multiprocessing's: it shares no clean-up with ours that a kill would upset.
    # In a session of its own the terminal's Ctrl-C does not reach it.
    ours, theirs = multiprocessing.Pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # nor before it has that session
    try:
        with contextlib.nullcontext() if log is None else log.open("ab") as printed:
            process = subprocess.Popen(
                command_of(module, str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=printed, stderr=printed,
                start_new_session=True,
                env=environment(),
            )  # fmt: skip
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    return LocalProcess(process, ours)
