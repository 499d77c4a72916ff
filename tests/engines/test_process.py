"""A process that threads write to and read from."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from batchinfer.engines.process import EngineChild, EngineEnded
from tests.scripted import HALF_A_MESSAGE


@pytest.fixture
def fed() -> Iterator[tuple[EngineChild, Connection]]:
    """One that sleeps, and the other end of its pipe, which it does not read."""
    ours, theirs = multiprocessing.Pipe()
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    process = EngineChild(started, ours)
    yield process, theirs
    process.kill()
    theirs.close()


def test_what_cannot_be_sent_is_told_at_once(fed: tuple[EngineChild, Connection]) -> None:
    """In the thread that writes nobody would hear of it: the engine would seem to hang."""
    process, theirs = fed
    with pytest.raises((AttributeError, TypeError), match="pickle"):
        process.send("task", lambda: None)
    process.send("task", "fine")
    assert theirs.recv() == ("task", "fine")


def test_nobody_waits_for_half_a_message(fed: tuple[EngineChild, Connection]) -> None:
    """It is there once all of it is; before that, the process that sends it is silent."""
    process, theirs = fed
    theirs.send(("results", [1]))
    os.write(theirs.fileno(), HALF_A_MESSAGE)
    assert process.ready.poll(10)
    assert process.receive() == ("results", [1])
    assert not process.ready.poll(0.2)
    process.kill()
    with pytest.raises(EngineEnded):
        process.receive()


def test_what_cannot_be_read_is_told_as_such(fed: tuple[EngineChild, Connection]) -> None:
    """And not as a process that died; what was sent before and after it is there."""
    process, theirs = fed
    theirs.send(("results", [1]))
    theirs.send_bytes(b"cno_such_module\nthing\n.")
    theirs.send(("results", [2]))
    assert process.receive() == ("results", [1])
    with pytest.raises(
        EngineEnded, match=r"sent what cannot be read \(ModuleNotFoundError: No module named 'no_such_module'\)"
    ):
        process.receive()
    assert process.receive() == ("results", [2])


def test_a_pipe_that_others_hold_is_closed(fed: tuple[EngineChild, Connection]) -> None:
    """As where a process that the engine started has its end: no thread waits there any more, and none uses its number later."""
    process, theirs = fed
    process.send("prompts", bytes(1 << 24))  # more than a pipe holds
    threads = (process._writer, process._inbox._reader)
    assert all(thread.is_alive() for thread in threads)
    process.kill()
    assert (process.pipe.closed, [thread.is_alive() for thread in threads]) == (True, [False, False])
    with pytest.raises((EOFError, OSError)):
        theirs.recv()
