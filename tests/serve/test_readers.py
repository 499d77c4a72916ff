"""Clients that do not read their replies, do not end their bodies, or say nothing at all, against real servers."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchinfer.core.http_limits import MAX_BODIES
from batchinfer.serve.doorkeeper import CROWDED
from tests.factories import LENIENT, imports_job
from tests.serving import Server, eventually, serving

ENTRY = 1 << 20  # characters
MOST_GROWTH = 300_000_000  # bytes, by which clients of any kind may make a worker grow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job whose entries are of a megabyte, but for one."""
    world = imports_job(tmp_path_factory.mktemp("world"), {"id": ["a", "b", "small"]}, gate=LENIENT)
    world.take_in({"id": ["a", "b", "small"], "prediction": ["a" * ENTRY, "b" * ENTRY, "small"]})
    world.publish()
    return world.data.root


@pytest.fixture
def server(home: Path, tmp_path: Path) -> Iterator[Server]:
    """One worker, which must live to the end."""
    with serving(home, tmp_path / "server") as server:
        workers = server.children()
        yield server
        assert server.children() == workers
        assert "Traceback" not in server.log
        assert "panicked" not in server.log


def memory(server: Server) -> int:
    """Bytes of its worker's memory."""
    [worker] = server.children()
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{worker}/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) * 1024


def asks_and_does_not_read(server: Server, request: bytes) -> socket.socket:
    """A client with a small buffer, so that little of the reply is on its way to it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", server.port))
    client.sendall(request)
    return client


def batch(count: int) -> bytes:
    body = json.dumps({"queries": [{"id": "a"}] * count}).encode()
    return b"POST /v1/jobs/shop/lookup HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


GET = b"GET /v1/jobs/shop/lookup?id=a HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize("request_", [batch(15), GET], ids=["batches", "entries"])
@pytest.mark.long
def test_clients_that_ask_and_do_not_read(server: Server, request_: bytes) -> None:
    """A worker holds so many bytes of replies and no more, refuses what is beyond, and goes on serving; then it cuts them off."""
    before = memory(server)
    clients = [asks_and_does_not_read(server, request_) for _ in range(200)]
    try:
        assert server.lookup("shop", id="small").json["prediction"] == "small"
        refused = server.batch("shop", [{"id": "b"}] * 15)
        assert refused.problem[:2] == (503, "busy")
        assert refused.headers["retry-after"] == "1"
        assert memory(server) < before + MOST_GROWTH
        eventually(lambda: server.metric("batchinfer_connections_closed_total") > 0, server.said)
        eventually(lambda: server.batch("shop", [{"id": "b"}] * 15).status == 200, server.said)
    finally:
        for client in clients:
            client.close()


@pytest.mark.long
def test_clients_that_do_not_end_their_bodies(server: Server) -> None:
    """A worker holds so many bytes of bodies and no more: the first to begin are sent away, and whole ones are answered."""
    before = memory(server)
    head = b"POST /v1/jobs/shop/lookup HTTP/1.1\r\nhost: x\r\ncontent-length: 1048576\r\n\r\n"
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(300)]
        for client in clients:
            client.sendall(head + b" " * 1_000_000)
        body = json.dumps({"queries": [{"id": "small"}]}).encode().ljust(1 << 20)
        assert server.batch("shop", body).json["results"][0]["found"]
        assert clients[0].recv(4096).startswith(b"HTTP/1.1 503")
        assert memory(server) < before + MAX_BODIES + (64 << 20)


@pytest.mark.long
def test_large_replies_are_whole(server: Server) -> None:
    """Those who read get all of it, also on a connection that is used again, compressed or for HEAD."""
    for size in (1, 15):
        reply = server.batch("shop", [{"id": "b"}] * size)
        assert [each["prediction"] for each in reply.json["results"]] == ["b" * ENTRY] * size
        assert int(reply.headers["content-length"]) == len(reply.body)
    assert server.lookup("shop", id="a").json["prediction"] == "a" * ENTRY
    assert server.request("HEAD", "/v1/jobs/shop/lookup?id=a").body == b""
    with server.connect() as connection:
        file = connection.makefile("rb")
        for _ in range(3):
            connection.sendall(GET)
            head = b"".join(iter(file.readline, b"\r\n")).lower()
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            assert json.loads(file.read(length))["prediction"] == "a" * ENTRY
        file.close()


@pytest.mark.long
def test_many_silent_connections(server: Server, tmp_path: Path) -> None:
    """They are closed as soon as they crowd, those of clients that speak are not, and others are served meanwhile."""
    with contextlib.ExitStack() as stack:
        speaking = stack.enter_context(server.connect())
        speaking.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        assert speaking.recv(4096).startswith(b"HTTP/1.1 200")
        silent = [stack.enter_context(server.connect()) for _ in range(CROWDED + 700)]
        eventually(lambda: server.metric("batchinfer_connections_closed_total") >= 600, server.said)
        assert server.lookup("shop", id="small").status == 200
        speaking.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        assert speaking.recv(4096).startswith(b"HTTP/1.1 200")
        assert silent
