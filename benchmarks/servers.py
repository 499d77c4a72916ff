"""The servers that the benchmarks of serving ask: batchinfer's, and its peers with the same data."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import duckdb

from batchinfer.core.home import JobData
from batchinfer.versions import folders, pointers
from batchinfer.versions.layout import PREDICTIONS
from benchmarks.made import JOB

ROOT = Path(__file__).parents[1]
SERVER_CORE, LOAD_CORE = 0, 1


def say(text: str) -> None:
    """What is under way."""
    print(text, file=sys.stderr, flush=True)


def need_wrk() -> None:
    """Ends with a sentence where the load generator is not installed."""
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed. This benchmark needs it (Debian and Ubuntu: apt install wrk).")


def workers_of(parent: int) -> list[int]:
    """The processes of a service that answer; beside them it has some that look after misses and alerts."""
    found = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        with contextlib.suppress(OSError):  # a child may just have ended
            children = (task / "children").read_text(encoding="ascii").split()
            found += [int(child) for child in children if b" worker-" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return found


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], core: int | str, environment: dict[str, str], url: str | None = None) -> Iterator[int]:
    """A process on one core; ready when `url` answers. Yields its process id."""
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *command], cwd=ROOT, env=os.environ | environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while url is not None:
            assert process.poll() is None and time.monotonic() < deadline, f"{command} does not answer"  # noqa: PT018
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):  # noqa: S310 - ours, on loopback
                break
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def service(root: Path, port: int, *options: str) -> list[str]:
    """Batchinfer on this data folder."""
    return [sys.executable, "-m", "batchinfer", "--home", str(root), "serve", "--port", str(port), *options]


def granian(app: str, port: int) -> list[str]:
    """The same server for a peer."""
    return [
        sys.executable, "-m", "granian", f"benchmarks.peers:{app}", "--factory", "--interface", "asgi", "--http", "1", "--no-ws",
        "--port", str(port), "--backpressure", "512",
    ]  # fmt: skip


def fill_duckdb(data: JobData, path: Path) -> None:
    """The bodies, by their key."""
    version = folders.folder_of(data, pointers.served(data).version)
    with duckdb.connect(str(path)) as db:
        db.execute("CREATE TABLE bodies (id VARCHAR PRIMARY KEY, body BLOB)")
        db.execute(f"INSERT INTO bodies SELECT id, json_object('job', '{JOB}', 'query', json_object('id', id), 'prediction', "
                   "prediction, 'scores', scores::JSON, 'score', score, 'source', source, 'model', model, 'generated_at', "
                   f"'2026-01-05T03:00:00Z')::VARCHAR::BLOB FROM read_parquet('{version / PREDICTIONS}')")  # fmt: skip


def fill_redis(database: Path, unix: Path) -> None:
    """The same bodies, through Redis' own bulk protocol."""
    with duckdb.connect(str(database), read_only=True) as db, socket.socket(socket.AF_UNIX) as pipe:
        pipe.connect(str(unix))
        for batch in db.sql("SELECT id, body FROM bodies").to_arrow_reader(50_000):
            ids, bodies = batch.column(0).to_pylist(), batch.column(1).to_pylist()
            parts = [
                b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(i), i.encode(), len(b), b)
                for i, b in zip(ids, bodies, strict=True)
            ]
            pipe.sendall(b"".join(parts))
            wanted = 5 * len(parts)  # +OK\r\n each
            while wanted > 0:
                wanted -= len(pipe.recv(1 << 16))


def databases(folder: Path, data: JobData, stack: contextlib.ExitStack) -> dict[str, tuple[str, dict[str, str]]]:
    """The peers that look up in a database, filled: name → (application in peers.py, its environment)."""
    database, unix = folder / "bodies.duckdb", folder / "redis.sock"
    say("Filling DuckDB …")
    fill_duckdb(data, database)
    found = {"Starlette + DuckDB": ("duckdb", {"BENCH_DUCKDB": str(database)})}
    if not shutil.which("redis-server") or importlib.util.find_spec("redis") is None:
        say("redis-server or the Python package redis is not installed: Redis is left out.")
        return found
    say("Filling Redis …")
    quiet = [
        "redis-server", "--port", "0", "--unixsocket", str(unix), "--save", "", "--appendonly", "no", "--dir", str(folder),
    ]  # fmt: skip
    stack.enter_context(running(quiet, LOAD_CORE, {}))
    while not unix.exists():
        time.sleep(0.1)
    fill_redis(database, unix)
    return {"Starlette + Redis": ("redis", {"BENCH_SOCKET": str(unix)})} | found
