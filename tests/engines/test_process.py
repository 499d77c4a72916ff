"""A process that a thread writes to."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from batchinfer.engines.process import FedProcess


@pytest.fixture
def fed() -> Iterator[tuple[FedProcess, Connection]]:
    """One that sleeps, and the other end of its pipe, which it does not read."""
    ours, theirs = multiprocessing.Pipe()
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    process = FedProcess(started, ours)
    yield process, theirs
    process.kill()
    theirs.close()


def test_what_cannot_be_sent_is_told_at_once(fed: tuple[FedProcess, Connection]) -> None:
    """In the thread that writes nobody would hear of it: the engine would seem to hang."""
    process, theirs = fed
    with pytest.raises((AttributeError, TypeError), match="pickle"):
        process.send("task", lambda: None)
    process.send("task", "fine")
    assert theirs.recv() == ("task", "fine")


def test_a_pipe_that_is_written_to_is_not_closed(
    fed: tuple[FedProcess, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a process that the engine started holds it: its number may be that of another file by then."""
    monkeypatch.setattr("batchinfer.engines.process.STOP_SECONDS", 0.1)
    process, theirs = fed
    process.send("prompts", bytes(1 << 24))  # more than a pipe holds
    process.kill()
    assert not process.pipe.closed
    assert theirs.recv() == ("prompts", bytes(1 << 24))
