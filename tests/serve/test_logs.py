"""Logs that nobody reads do not block the service."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from batchinfer.core import outlet
from batchinfer.core.outlet import Outlet
from tests.factories import LENIENT, imports_job
from tests.serving import Server, eventually


@pytest.mark.long
def test_pipes_that_nobody_reads(tmp_path: Path) -> None:
    """Requests are answered long after both pipes are full; what was not written is counted, and the service ends in time."""
    world = imports_job(tmp_path / "job", {"id": ["a"]}, gate=LENIENT)
    world.take_in({"id": ["a"], "prediction": ["1"]})
    world.publish()
    server = Server(world.data.root, tmp_path / "server", 1, ("--access-log",), unread=True)
    server.start()
    try:
        request = f"/v1/jobs/{'x' * 300}/{'y' * 300}"
        full = (1 << 16) // 300  # lines that a pipe has room for
        for _ in range(2 * full):
            assert server.get(request).status == 404
        assert server.lookup("shop", id="a").status == 200
        assert server.get("/livez").status == 200
        assert server.metric("batchinfer_log_lines_dropped_total") == 0  # they wait
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize("closed", [False, True], ids=["full", "closed"])
@pytest.mark.long
def test_a_start_of_which_nobody_reads(tmp_path: Path, closed: bool) -> None:
    """A service starts, and ends, whose output was full, or had no reader, before it wrote a word."""
    (tmp_path / "home").mkdir()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    if closed:
        os.close(reading)
    server = Server(tmp_path / "home", tmp_path / "server", output=writing)
    try:
        server.start()
    finally:
        assert server.stop() == 0
        os.close(writing)
        if not closed:
            os.close(reading)


def test_what_finds_no_room_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines wait for a full pipe in bounded number; when it is read again those that waited come, whole and in order."""
    monkeypatch.setattr(outlet, "MOST_WAITING", 10)
    reading, writing = os.pipe()
    lines = Outlet(writing)
    for number in range(1000):
        lines.write(f"{number:04} {'x' * 500}")
    assert lines.dropped > 0
    kept = 1000 - lines.dropped
    got = b""
    while got.count(b"\n") < kept:
        got += os.read(reading, 1 << 16)
    numbers = [int(line[:4]) for line in got.decode().splitlines()]
    assert numbers == sorted(numbers)
    lines.write("again")
    eventually(lambda: os.read(reading, 1 << 16).endswith(b"again\n"))
    lines.drain()
    os.close(reading)
    os.close(writing)


def test_a_reader_that_is_gone(tmp_path: Path) -> None:
    """What is written to a closed pipe is dropped and counted."""
    reading, writing = os.pipe()
    os.close(reading)
    lines = Outlet(writing)
    lines.write("nobody")
    eventually(lambda: lines.dropped == 1)
    os.close(writing)
