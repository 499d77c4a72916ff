"""A real service in processes of its own, and jobs for it to serve."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from batchinfer.home import JobHome
from tests.factories import World, imports_job

ROOT = Path(__file__).parents[1]
SOON = 20.0  # seconds; a busy machine is slow
OPEN = {"coverage": 0, "failures": 1, "shrink": 1, "changed": 1}


def until(true: Callable[[], Any]) -> None:
    """Waits for something that happens beside this thread."""
    end = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(home: Path, log: Path) -> Iterator[str]:
    """A service of this data folder in processes of its own; its address."""
    port = free_port()
    command = [sys.executable, "-m", "batchinfer", "--home", str(home), "serve", "--port", str(port), "--workers", "1"]
    with log.open("wb") as said:
        process = subprocess.Popen([*command, "--no-misses"], cwd=ROOT, stdout=said, stderr=said)
    try:
        until(lambda: _listens(port) or process.poll() is not None)
        assert process.poll() is None, log.read_text(encoding="utf-8")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(SOON)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def job(root: Path, name: str, columns: dict[str, Any], **sections: Any) -> World:
    """A job without versions, in a data folder that others may share."""
    made = imports_job(root.parent / f"{name}-job", columns, name=name, gate=OPEN, **sections)
    root.mkdir(exist_ok=True)
    shutil.move(made.home.folder, root / name)
    return World(made.job, JobHome(root, name))


def say(world: World, prediction: str, **columns: Sequence[Any]) -> None:
    """Publishes one prediction for all these keys."""
    rows = len(next(iter(columns.values())))
    world.rows(columns)
    world.take_in(columns | {"prediction": [prediction] * rows})
    world.publish()
