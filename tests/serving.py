"""A real lookup service for tests: `batchinfer serve` as a child process, and plain clients for it."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from batchinfer.core.home import JobData
from tests.factories import LENIENT, World, imports_job
from tests.tiny import ROOT

PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. headers: by their names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> tuple[int, str, str]:
        """(status, kind, sentence) of an error, which must be a whole problem document."""
        assert self.headers["content-type"] == "application/problem+json", self
        content = self.json
        assert content.keys() == {"type", "title", "status", "detail"}
        assert content["status"] == self.status
        return self.status, content["type"].removeprefix("urn:batchinfer:"), content["detail"]


@dataclass
class Server:
    """`batchinfer serve` on a free port of the loopback.

    unread: whether stdout and stderr are pipes that nobody reads.
    output: a descriptor that both are in place of files.
    """

    data: Path
    folder: Path
    workers: int = 1
    options: tuple[str, ...] = ()
    port: int = 0
    unread: bool = False
    output: int | None = None
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self, *, ready: bool = True) -> None:
        """ready: wait until /readyz says 200; otherwise until the service answers at all."""
        self.port = self.port or free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as files:
            out, log = (files.enter_context((self.folder / name).open("ab")) for name in ("out", "log"))
            pipe = subprocess.PIPE if self.unread else self.output
            self.process = subprocess.Popen(
                [sys.executable, "-m", "batchinfer", "--home", str(self.data), "serve", "--port", str(self.port),
                 "--workers", str(self.workers), *self.options],
                stdin=subprocess.DEVNULL, stdout=pipe or out, stderr=pipe or log, cwd=ROOT, start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.folder)},
            )  # fmt: skip
        eventually(lambda: self._status("/readyz") in ((200,) if ready else (200, 503)), self.said)
        # the first one answers before the last is there
        eventually(lambda: len(self.children()) >= self.workers, self.said)

    def _status(self, path: str) -> int:
        assert self.process.poll() is None, self.log
        try:
            return self.get(path).status
        except OSError:
            return 0

    def stop(self) -> int:
        """SIGTERM; returns the exit code. What still runs after the time that the service gives itself is killed."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            for pipe in filter(None, (self.process.stdout, self.process.stderr)):
                pipe.close()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it wrote to stderr."""
        return (self.folder / "log").read_text(encoding="utf-8")

    @property
    def out(self) -> str:
        """What it wrote to stdout."""
        return (self.folder / "out").read_text(encoding="utf-8")

    def said(self) -> str:
        return f"the server wrote: {self.log}"

    def children(self, *, collector: bool = False) -> list[int]:
        """The ids of its worker processes; or of its collector of misses."""
        found, pids = [], list[int]()
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():  # each thread has the children that it started
            with contextlib.suppress(OSError):  # a thread that has just ended has none
                pids += map(int, (task / "children").read_text().split())
        for pid in pids:
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                is_collector, is_watcher = (
                    b"batchinfer.misses.collector" in command,
                    b"batchinfer.alerts.watcher" in command,
                )
                if is_collector is collector and not is_watcher:
                    found.append(pid)
        return found

    def connect(self, seconds: float = PATIENCE) -> socket.socket:
        """A bare connection, for what no well-behaved client sends."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, dict(headers or {}))
            return reply_of(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def lookup(self, job: str, headers: Mapping[str, str] | None = None, **query: Any) -> Reply:
        return self.request("GET", f"/v1/jobs/{job}/lookup?{urlencode(query)}", headers=headers)

    def batch(self, job: str, queries: Any, **headers: str) -> Reply:
        """Asks with a list of queries, or with a body as it is."""
        body = queries if isinstance(queries, bytes) else json.dumps({"queries": queries}).encode()
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("POST", f"/v1/jobs/{job}/lookup", body, {"content-type": "application/json"} | said)

    def match(self, job: str, text: str, headers: Mapping[str, str] | None = None, **more: Any) -> Reply:
        """Asks by URL."""
        return self.request(
            "GET", f"/v1/jobs/{job}/match?{urlencode({'text': text} | more, doseq=True)}", headers=headers
        )

    def matches(self, job: str, texts: Any, headers: Mapping[str, str] | None = None, **more: Any) -> Reply:
        """Asks with a list of texts, or with a body as it is."""
        body = texts if isinstance(texts, bytes) else json.dumps({"texts": texts} | more).encode()
        said = {"content-type": "application/json"} | dict(headers or {})
        return self.request("POST", f"/v1/jobs/{job}/match", body, said)

    def raw(self, data: bytes) -> bytes:
        """Sends these bytes; returns all that comes back until the other side closes or is silent for two seconds."""
        with self.connect() as connection:
            connection.sendall(data)
            return drained(connection)

    def settled(self, job: str, version: int | None) -> None:
        """Waits until every worker serves this version."""
        path = f"/v1/jobs/{job}"
        eventually(lambda: all(each.json.get("version") == version for each in self.each_worker(path)), self.said)

    def each_worker(self, path: str) -> list[Reply]:
        """What each worker answers. A connection may reach any of them: new ones are made until all were met."""
        workers, replies = set(self.children()), dict[int, Reply]()
        deadline = time.monotonic() + PATIENCE
        while not workers <= replies.keys():
            assert time.monotonic() < deadline, f"only {list(replies)} of {workers} answered; {self.said()}"
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                worker = self.worker_of(connection.sock)  # known as long as the connection is open
                if worker is not None:
                    replies[worker] = reply_of(response)
            finally:
                connection.close()
        return [replies[worker] for worker in workers]

    def worker_of(self, connection: socket.socket) -> int | None:
        """Which worker has the other end of a connection, by the system's tables of sockets and of open files."""
        port = connection.getsockname()[1]
        ends = (f"{self.port:04X}", f"{port:04X}")
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        sockets = {Path(f"socket:[{row[9]}]") for row in rows if (row[1][-4:], row[2][-4:]) == ends}
        for worker in self.children():
            for file in Path(f"/proc/{worker}/fd").iterdir():
                with contextlib.suppress(OSError):  # a file that was closed meanwhile
                    if file.readlink() in sockets:
                        return worker
        return None

    def version(self, job: str) -> int | None:
        """The version that answers now; None if there is none, or a worker has just started."""
        version = self.get(f"/v1/jobs/{job}").json.get("version")
        return None if version is None else int(version)

    def metric(self, name: str, **labels: str) -> float:
        """A sample of /metrics; 0 if there is none."""
        return value_of(self.samples(), name, labels)

    def metric_of_each(self, name: str, **labels: str) -> set[float]:
        """The same, as each worker tells it."""
        return {value_of(samples_of(reply), name, labels) for reply in self.each_worker("/metrics")}

    def samples(self) -> list[Any]:
        return samples_of(self.get("/metrics"))


def samples_of(reply: Reply) -> list[Any]:
    """The samples of an answer to /metrics."""
    from prometheus_client.parser import text_string_to_metric_families

    families = text_string_to_metric_families(reply.body.decode())
    return [sample for family in families for sample in family.samples]


def value_of(samples: Sequence[Any], name: str, labels: Mapping[str, str]) -> float:
    """The sum of the samples of a metric that have these labels; 0 if there is none."""
    labelled = [sample for sample in samples if sample.name == name and labels.items() <= sample.labels.items()]
    return float(sum(sample.value for sample in labelled))


def reply_of(response: http.client.HTTPResponse) -> Reply:
    """The answer that a client of the standard library got, whole."""
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, headers, response.read())


def drained(connection: socket.socket, seconds: float = 2.0) -> bytes:
    """All that comes until the other side closes or is silent for this long."""
    connection.settimeout(seconds)
    pieces = []
    with contextlib.suppress(OSError):
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


@contextlib.contextmanager
def serving(data: Path, folder: Path, *options: str, workers: int = 1, ready: bool = True) -> Iterator[Server]:
    """A server that runs for a while. folder: for its output, and for its temporary files."""
    server = Server(data, folder, workers, options)
    try:
        server.start(ready=ready)
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(condition: Callable[[], Any], why: Callable[[], str] | None = None, seconds: float = PATIENCE) -> Any:
    """Waits until something is so, and returns it."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, why() if why else "it did not happen in time"
        time.sleep(0.02)
    return value


def moved(world: World, root: Path) -> World:
    """The same job with its part of the data folder below `root`, so that one server serves several."""
    root.mkdir(parents=True, exist_ok=True)
    data = JobData(root, world.data.name)
    shutil.move(str(world.data.folder), str(data.folder))
    return dataclasses.replace(world, data=data)


def job(root: Path, name: str, columns: Mapping[str, Any], **sections: Any) -> World:
    """A job of imports without versions, in a data folder that others may share."""
    return moved(imports_job(root.parent / f"{name}-job", columns, name=name, gate=LENIENT, **sections), root)


NAMES: dict[str, Any] = {
    "input": {"path": "queries.parquet", "key": ["thing", "language"]},
    "output": {"type": "json", "schema": {"type": "object"}},
    "match": {"terms": ["prediction.names", "thing"], "concept": "thing", "language": "language"},
}
"""The sections of a job whose predictions are names of things, to be found in texts."""


def names_job(root: Path, name: str, named: Mapping[tuple[str, str], Sequence[str]], **sections: Any) -> World:
    """A job with one version of such names. named: the names by thing and language."""
    world = job(root, name, {"thing": ["x"], "language": ["en"]}, **NAMES | sections)
    name_things(world, named)
    return world


def name_things(world: World, named: Mapping[tuple[str, str], Sequence[str]]) -> None:
    """Publishes these names."""
    things, languages = [thing for thing, _ in named], [language for _, language in named]
    said = [json.dumps({"names": list(names)}, ensure_ascii=False) for names in named.values()]
    world.rows({"thing": things, "language": languages})
    world.take_in({"thing": things, "language": languages, "prediction": said})
    world.publish()


def say(world: World, prediction: str, **columns: Sequence[Any]) -> None:
    """Publishes one prediction for all these keys."""
    rows = len(next(iter(columns.values())))
    world.rows(columns)
    world.take_in(columns | {"prediction": [prediction] * rows})
    world.publish()
