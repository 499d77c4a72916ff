"""What the service says of its jobs and of itself."""

from __future__ import annotations

import json
import re
import socket
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.factories import LENIENT, World, imports_job
from tests.serve.jobs import TYPED
from tests.serving import Server, eventually, moved


def test_what_is_served_is_listed(server: Server, shop: World, typed: World) -> None:
    """GET /v1/jobs tells of each job which version is served, how old it is, and the columns of its key."""
    jobs = {job["job"]: job for job in server.get("/v1/jobs").json["jobs"]}
    assert list(jobs) == ["empty", "shop", "typed"]
    assert jobs["empty"] == {
        "job": "empty", "version": None, "created_at": None, "age_seconds": None, "entries": None, "key": [], "pinned": False,
        "degraded": False, "problem": None, "last_success_at": None, "stale": None, "failed_loads": 0, "precision": None, "recall": None,
        "student": None,
    }  # fmt: skip
    manifest = typed.served().manifest
    one = jobs["typed"]
    assert (one["version"], one["created_at"], one["entries"]) == (1, manifest.document["created_at"], 3)
    kinds = ["string", "integer", "number", "boolean", "date", "timestamp"]
    assert one["key"] == [{"name": name, "kind": kind} for name, kind in zip(TYPED, kinds, strict=True)]
    age = datetime.now(UTC).timestamp() - datetime.fromisoformat(one["created_at"]).timestamp()
    assert one["age_seconds"] == pytest.approx(age, abs=5)
    again = server.get("/v1/jobs/typed").json
    assert again | {"age_seconds": 0} == one | {"age_seconds": 0}


def test_a_job_without_a_version_holds_nobody_back(server: Server) -> None:
    """It answers 503, without a hint when to ask again since nobody knows; the service is ready, and the others serve."""
    reply = server.batch("empty", [{"text": "x"}])
    assert reply.problem == (503, "not-published", "The job empty has no published version yet.")
    assert "retry-after" not in reply.headers
    assert server.get("/readyz").json == {
        "status": "ready",
        "worker_deaths": 0,
        "workers_held_back": 0,
        "degraded_jobs": 0,
    }
    assert server.get("/livez").json == {"status": "alive"}
    assert server.lookup("shop", text="Tee").status == 200


def test_a_job_that_appears_is_served(server: Server, tmp_path: Path) -> None:
    """A job whose first version is published while the service runs is found by every worker, without a restart."""
    world = imports_job(tmp_path, {"id": ["a"]}, name="late", gate=LENIENT)
    world.take_in({"id": ["a"], "prediction": ["x"]})
    world.publish()
    world = moved(world, server.data)
    server.settled("late", 1)
    assert server.lookup("late", id="a").body == world.get(id="a")
    world.data.folder.rename(tmp_path / "gone")  # what is open goes on being served
    assert server.lookup("late", id="a").status == 200
    (tmp_path / "gone").rename(world.data.folder)


def test_a_connection_is_kept(server: Server) -> None:
    """Several requests go over one connection, also after a miss, a refusal and a batch."""
    ask = b"GET /v1/jobs/shop/lookup?text=%b HTTP/1.1\r\nhost: x\r\n\r\n"
    body = b'{"queries":[]}'
    batch = b"POST /v1/jobs/shop/lookup HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    with server.connect() as connection:
        for request, status in [
            (ask % b"Tee", 200),
            (ask % b"x", 404),
            (ask % b"%", 400),
            (batch, 200),
            (ask % b"Tee", 200),
        ]:
            connection.sendall(request)
            assert one_reply(connection).startswith(b"HTTP/1.1 %d " % status)


def one_reply(connection: socket.socket) -> bytes:
    """The next answer on a connection, by its content-length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += received(connection)
    head, _, rest = data.partition(b"\r\n\r\n")
    length = int(re.findall(rb"content-length: (\d+)", head)[0])
    while len(rest) < length:
        rest += received(connection)
    return data


def received(connection: socket.socket) -> bytes:
    """What comes next, which must not be the end."""
    piece = connection.recv(65536)
    assert piece
    return piece


def test_a_pin_is_reported(server: Server, typed: World) -> None:
    """A pinned version is reported by the metric and by /v1/jobs."""
    pin = typed.data.folder / "PIN"
    pin.write_bytes((typed.data.folder / "CURRENT").read_bytes())
    eventually(lambda: server.metric_of_each("batchinfer_pinned", job="typed") == {1})
    assert all(reply.json["pinned"] is True for reply in server.each_worker("/v1/jobs/typed"))
    pin.unlink()
    eventually(lambda: server.metric_of_each("batchinfer_pinned", job="typed") == {0})


def test_the_access_log_names_no_query(server: Server) -> None:
    """Each request is one line of JSON with what operators need; neither queries nor bodies nor secrets are in it."""
    server.lookup("shop", {"authorization": "Bearer bi_0a1b2c3d_SECRETSECRET"}, text="PRIVATE")
    server.batch("shop", [{"text": "PRIVATE"}], authorization="Bearer bi_4e5f6a7b_SECRETSECRET")
    server.get("/v1/jobs/" + quote('a"\n\x1b[31mé') + "?PRIVATE")
    marks = ("0a1b2c3d", "4e5f6a7b", "31m")
    eventually(lambda: all(mark in server.out for mark in marks))
    lines = server.out.splitlines()
    assert "PRIVATE" not in server.out
    assert "SECRET" not in server.out + server.log
    lookup, batch, odd = (json.loads(next(line for line in lines if mark in line)) for mark in marks)
    assert list(lookup) == ["time", "client", "method", "path", "status", "bytes", "seconds", "key"]
    assert (lookup["method"], lookup["path"], lookup["status"]) == ("GET", "/v1/jobs/shop/lookup", 404)
    assert (lookup["client"], lookup["key"]) == ("127.0.0.1", "0a1b2c3d")
    assert (batch["method"], batch["status"], odd["key"]) == ("POST", 200, None)
    assert odd["path"] == '/v1/jobs/a"\n\x1b[31mé'
    assert datetime.fromisoformat(lookup["time"]).tzinfo is not None
    assert lookup["bytes"] > 0
    assert lookup["seconds"] > 0


def test_the_docs_page_needs_nothing_else(server: Server) -> None:
    """/docs is one page without scripts or anything from elsewhere, and names every route."""
    reply = server.get("/docs")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    page = reply.body.decode()
    assert "<script" not in page
    assert all(path in page for path in server.get("/openapi.json").json["paths"])
