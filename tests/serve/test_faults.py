"""Bad input and faults, against real servers: each gets its refusal, and what is served goes on being served."""

from __future__ import annotations

import asyncio
import json
import os
import select
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchinfer.core.home import JobData
from batchinfer.serve import app, body
from batchinfer.serve.apikeys import KeyFile
from batchinfer.serve.app import Service, Settings
from batchinfer.serve.body import Bodies
from batchinfer.serve.problems import Problem
from batchinfer.serve.server import HEADER_SECONDS
from batchinfer.versions.folders import folder_of
from batchinfer.versions.layout import LOOKUP
from batchinfer.versions.pointers import CURRENT, PIN
from tests.damage import VERSIONS, next_version, point
from tests.serve.jobs import prediction
from tests.serving import PATIENCE, Server, drained, eventually, serving

REQUEST = b"%b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
POST = b"POST /v1/jobs/shop/lookup HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture(scope="module")
def server(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that is sent much nonsense. At the end it must not have failed once."""
    with serving(published, tmp_path_factory.mktemp("server")) as server:
        yield server
        assert "Traceback" not in server.log
        assert "panicked" not in server.log


def status(answer: bytes) -> int:
    """The status of a raw answer; 0 where there is none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


@pytest.mark.parametrize(
    ("query", "code"),
    [
        (b"", 400), (b"x=a", 400), (b"id=a&x=b", 400), (b"id=a&id=a", 400), (b"id", 404), (b"id=", 404), (b"=a", 400),
        (b"id=%", 400), (b"id=%4", 400), (b"id=%zz", 400), (b"%zz=a", 400), (b"id=%ff", 400), (b"id=%c3", 400),
        (b"id=%ed%a0%80", 400), (b"id=a%00b", 404), (b"id=%61", 200), (b"%69d=a", 200), (b"id=a&", 200), (b"&&id=a", 200),
        (b"id=a=b", 404), (b"id=" + b"a" * 8000, 404), (b"id=" + b"a" * 8200, 414), (b"id=a" + b"&x" * 5000, 414),
    ],
)  # fmt: skip
@pytest.mark.long
def test_queries_of_urls(server: Server, query: bytes, code: int) -> None:
    """Missing, unknown, doubled and badly escaped columns are refused; odd but honest ones are looked up."""
    answer = server.raw(REQUEST % (b"GET /v1/jobs/shop/lookup?" + query))
    assert status(answer) == code
    if code != 200:
        assert b"application/problem+json" in answer


@pytest.mark.parametrize("where", ["query", "path", "header"])
@pytest.mark.long
def test_a_megabyte_where_no_megabyte_belongs(server: Server, where: str) -> None:
    """A value of 1 MB in a URL or a header is refused before it is read, and the connection is closed."""
    big = b"a" * (1 << 20)
    lines = {
        "query": b"GET /v1/jobs/shop/lookup?id=%b HTTP/1.1\r\nhost: x\r\n\r\n" % big,
        "path": b"GET /v1/jobs/%b/lookup?id=a HTTP/1.1\r\nhost: x\r\n\r\n" % big,
        "header": b"GET /v1/jobs/shop/lookup?id=a HTTP/1.1\r\nhost: x\r\nx-big: %b\r\n\r\n" % big,
    }
    with server.connect() as connection:
        try:
            connection.sendall(lines[where])
        except OSError:  # it was cut off in the middle
            return
        assert status(drained(connection)) in (0, 414, 431)
    assert prediction(server) == "3"


def test_a_value_of_a_megabyte_in_a_batch(server: Server) -> None:
    """A long value is looked up as long as the body is no longer than 1 MiB, and refused beyond it."""
    reply = server.batch("shop", [{"id": "a" * 1_000_000}])
    assert (reply.status, reply.json["results"][0]["found"]) == (200, False)
    for size in (1 << 20, 4 << 20):  # the client gets to read why, though it sends before it reads
        assert server.batch("shop", [{"id": "a" * size}]).problem[:2] == (413, "too-large")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "bad-body"), (b"{", "bad-body"), (b"\xff\xfe", "bad-body"), (b"id=a", "bad-body"), (b"null", "bad-body"),
        (b'[{"id": "a"}]', "bad-body"), (b'{"queries": {"id": "a"}}', "bad-body"), (b'{"queries": null}', "bad-body"),
        (b'{"queries": [], "more": 1}', "bad-body"), (b'{"queries": [{"id": NaN}]}', "bad-body"),
        (b'{"queries": [{"id": -Infinity}]}', "bad-body"), (b'{"queries": [{"id": "\xff"}]}', "bad-body"),
        (b'{"queries": [{"id": ' + b"9" * 5000 + b"}]}", "bad-body"), (b'{"queries": []} x', "bad-body"),
        (b"[" * 500_000, "bad-body"), (b'{"a":' * 100_000, "bad-body"),
    ],
)  # fmt: skip
def test_bodies_that_are_no_batch(server: Server, body: bytes, kind: str) -> None:
    """A body that is not JSON, not UTF-8, too deep, or no list of queries is refused as a whole with a sentence."""
    code, found, sentence = server.batch("shop", body).problem
    assert (code, found) == (400, kind)
    assert len(sentence) < 400


@pytest.mark.parametrize(
    "query",
    [
        b'{"id": 1e999}', b'{"id": ' + b"[" * 800 + b"]" * 800 + b"}", b"[]", b'"a"', b"{}", b'{"id": null}', b'{"id": 7}',
        b'{"id": "\\ud800"}', b'{"id": "a", "\\udfff": 1}', b"null", b"1e999", b'{"id": {"id": "a"}}',
    ],
)  # fmt: skip
@pytest.mark.long
def test_a_bad_query_is_an_error_of_its_own(server: Server, query: bytes) -> None:
    """Whatever stands in a batch, the other queries are answered, and it has a sentence of its own."""
    reply = server.batch("shop", b'{"queries": [{"id": "a"}, %b, {"id": "none"}]}' % query)
    assert reply.status == 200
    first, refused, last = reply.json["results"]
    assert (first["found"], last) == (True, {"found": False, "query": {"id": "none"}})
    assert refused.keys() == {"found", "error"}
    assert refused["error"]["type"] == "urn:batchinfer:bad-query"
    assert len(refused["error"]["detail"]) < 400


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_100_megabytes(server: Server, declared: bool) -> None:
    """Declared or in chunks, it is refused long before it has come, and the connection is closed."""
    head = b"content-length: 104857600\r\n\r\n" if declared else b"transfer-encoding: chunked\r\n\r\n"
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    sent = 0
    with server.connect() as connection:
        connection.sendall(POST + head)
        while sent < 100 << 20 and not select.select([connection], [], [], 0)[0]:
            try:
                sent += connection.send(piece)
            except OSError:
                break
        answer = drained(connection)
    assert status(answer) == 413
    assert b"urn:batchinfer:too-large" in answer
    assert sent < 30 << 20


def test_a_client_that_waits_for_a_go_ahead_is_answered_at_once(server: Server) -> None:
    """With Expect: 100-continue nothing of a body that is too large need be sent."""
    answer = server.raw(POST + b"content-length: 104857600\r\nexpect: 100-continue\r\n\r\n")
    assert status(answer) == 413


def test_a_body_that_breaks_off(server: Server) -> None:
    """A client that hangs up in the middle of its body harms nobody."""
    with server.connect() as connection:
        connection.sendall(POST + b'content-length: 1000\r\n\r\n{"queries": [')
    assert prediction(server) == "3"


def test_a_body_that_does_not_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a body ends with 408 when its time is up, however small the pieces are in which it trickles."""
    monkeypatch.setattr(body, "BODY_SECONDS", 0.1)

    pieces = 0

    async def trickle() -> dict[str, Any]:
        nonlocal pieces
        pieces += 1
        await asyncio.sleep(0.03)
        return {"type": "http.request", "body": b" ", "more_body": True}

    with pytest.raises(Problem) as refused:
        asyncio.run(Bodies().read([], trickle))
    assert refused.value.status == 408
    assert pieces <= 4


@dataclass(frozen=True, slots=True)
class Trickled:
    """What became of a client that sends a byte now and then.

    answer: what it got.
    rounds: how many times half a second went by without a word from the server.
    ended: whether the server answered, or cut it off.
    """

    answer: bytes
    rounds: int
    ended: bool


@pytest.fixture(scope="module")
def trickled(server: Server) -> dict[str, Trickled]:
    """What becomes of clients that send a byte now and then."""
    starts = {
        "body": POST + b'content-length: 1000\r\n\r\n{"queries":',
        "header": b"GET /v1/jobs/shop/lookup?id=a HTTP/1.1\r\nhost: x\r\nx-slow: ",
        "idle": b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n",
    }
    found: dict[str, Trickled] = {}

    def trickle(name: str) -> None:
        deadline, answer, rounds, ended = time.monotonic() + PATIENCE, b"", 0, False
        with server.connect() as connection:
            connection.sendall(starts[name])
            while not ended and time.monotonic() < deadline:
                if select.select([connection], [], [], 0.5)[0]:
                    piece = connection.recv(65536)
                    answer += piece
                    ended = not piece or name == "body"
                    continue
                rounds += 1
                if name != "idle":
                    connection.send(b" " if name == "body" else b"x")
        found[name] = Trickled(answer, rounds, ended)

    threads = [threading.Thread(target=trickle, args=[name]) for name in starts]
    for thread in threads:
        thread.start()
    assert prediction(server) == "3"  # others are served meanwhile
    for thread in threads:
        thread.join()
    return found


@pytest.mark.long
def test_a_body_that_trickles_in(trickled: dict[str, Trickled]) -> None:
    """After ten seconds, and not at once, the answer is 408."""
    found = trickled["body"]
    assert status(found.answer) == 408
    assert b"urn:batchinfer:slow-body" in found.answer
    assert b"The body did not come within 10 s." in found.answer
    assert found.ended
    assert found.rounds > 1


@pytest.mark.long
@pytest.mark.parametrize("name", ["header", "idle"])
def test_a_connection_on_which_nothing_gets_done_is_cut(trickled: dict[str, Trickled], name: str) -> None:
    """Headers that trickle in, and a connection without a next request, are cut off after ten seconds, not at once."""
    found = trickled[name]
    assert HEADER_SECONDS == 10
    assert found.ended
    assert found.rounds > 1
    assert status(found.answer) == (200 if name == "idle" else 0) or status(found.answer) == 408


@pytest.mark.parametrize(
    "name",
    [
        b"..", b"%2e%2e", b".", b"%2e", b"..%2fshop", b"..%5cshop", b"%2e%2e%2fhome%2fshop", b"shop%00", b"%00", b"shop/..",
        b"shop%2f..%2fshop", b"/shop", b"%2fetc%2fpasswd", b"SHOP", b"shop%20", b"%ff", b"%zz", b"%", b"~", b"a" * 4000,
        b"%F0%9F%98%80", b"CON", b"models", b"*", b"shop;x", b"shop%3fid=a", b"-", b"$BATCHINFER_HOME", b"__class__",
    ],
)  # fmt: skip
@pytest.mark.long
def test_tricks_in_the_jobs_name(server: Server, name: bytes) -> None:
    """No name but that of a job leads anywhere: 404, whatever it looks like, and no file is touched for it."""
    for path in (b"/v1/jobs/%b/lookup?id=a", b"/v1/jobs/%b"):
        answer = server.raw(REQUEST % (b"GET " + path % name))
        assert status(answer) == 404
        assert b"urn:batchinfer:unknown-job" in answer or b"urn:batchinfer:not-found" in answer
        assert b'"prediction"' not in answer


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\r\n\r\n", b"GET", b"GET /\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"\x00" * 1000,
        b"GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/jobs/shop/lookup HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/jobs/shop/lookup HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /v1/jobs HTTP/1.1\r\nhost: x\r\nno colon\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_no_http(server: Server, data: bytes) -> None:
    """Bytes that are no request get 4xx or nothing, and the next client is served."""
    with server.connect() as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert status(drained(connection)) in (0, *range(400, 500))
    assert prediction(server) == "3"


def test_before_the_data_folder_was_read_no_job_is_unknown(published: Path, tmp_path: Path) -> None:
    """A worker that has just started answers 503, and never says of a job that is served that there is none."""
    (tmp_path / "metrics").mkdir()
    service = Service(Settings(published, tmp_path))
    for path in ("/v1/jobs/shop/lookup", "/v1/jobs/shop", "/v1/jobs", "/readyz"):
        assert asked(service, path) == 503
    service.refresh()
    assert asked(service, "/v1/jobs/shop/lookup") == 200
    assert asked(service, "/v1/jobs/nosuch/lookup") == 404
    assert asked(service, "/readyz") == 200


def test_a_worker_that_starts_while_the_data_folder_is_away(published: Path, tmp_path: Path) -> None:
    """It knows of no job and says 503, until the folder is there."""
    (tmp_path / "metrics").mkdir()
    service = Service(Settings(tmp_path / "home", tmp_path))
    service.refresh()
    assert (asked(service, "/readyz"), asked(service, "/v1/jobs/shop/lookup")) == (503, 503)
    shutil.copytree(published, tmp_path / "home")
    service.refresh()
    assert (asked(service, "/readyz"), asked(service, "/v1/jobs/shop/lookup")) == (200, 200)


def test_a_revoked_key_is_dropped_while_a_version_is_being_checked(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening versions can take long; keys are picked up meanwhile."""
    data = tmp_path / "home"
    shutil.copytree(published, data)
    made = KeyFile(data).add("search", None)
    record, key = made.record, made.key
    (tmp_path / "metrics").mkdir()
    service, opened = Service(Settings(data, tmp_path)), threading.Event()
    monkeypatch.setattr(service.registry, "refresh", lambda: opened.wait(20))
    monkeypatch.setattr(app, "FIRST_SECONDS", 0.1)

    async def asking() -> None:
        for _ in range(200):
            service.authenticator.check(header, "shop")
            await asyncio.sleep(0.05)

    async def revoking() -> None:
        async with service.lifespan():
            assert service.authenticator.check(header, "shop") == record
            KeyFile(data).revoke(record.id)
            try:
                with pytest.raises(Problem, match="revoked"):
                    await asking()
            finally:
                opened.set()

    header = f"Bearer {key}"
    asyncio.run(revoking())


def test_failed_loads_are_among_a_workers_numbers(data: JobData, tmp_path: Path) -> None:
    """So the worker that answers /metrics sums those of all workers."""
    service = Service(Settings(data.root, tmp_path))
    service.refresh()
    assert service.worker_metrics.counters["failed_loads", "shop"] == 0
    next_version(data, 1, 4, VERSIONS["truncated lookup file"][0])
    service.refresh()
    assert service.worker_metrics.counters["failed_loads", "shop"] == 1


@pytest.mark.long
def test_the_limit_of_a_url_counts_path_and_query(server: Server) -> None:
    """A look-up's URL may have so many bytes and not one more, as any other's."""
    path = "/v1/jobs/shop/lookup"
    room = 8192 - len(path) - len("id=")
    assert server.get(f"{path}?id={'a' * room}").problem[:2] == (404, "miss")
    assert server.get(f"{path}?id={'a' * (room + 1)}").problem[:2] == (414, "long-url")


def asked(service: Service, path: str) -> int:
    """The status with which a service in this process answers."""
    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"id=a", "headers": [],
        "root_path": "", "scheme": "http", "http_version": "1.1", "server": ("x", 80), "client": ("x", 1),
    }  # fmt: skip
    asyncio.run(service(scope, receive, send))
    return int(messages[0]["status"])


@pytest.mark.long
def test_the_old_version_goes_on_whatever_comes(data: JobData, tmp_path: Path) -> None:
    """Damaged versions and pointers, and a folder that is away: reported in log, metrics and /v1/jobs, and no client is refused."""
    with serving(data.root, tmp_path / "server") as server:
        number, failed = 3, 0.0
        chosen = ("half-copied: no lookup file yet", "truncated lookup file", "wrong checksum of the lookup file",
                  "unknown format", "a manifest of another job")  # fmt: skip
        for name in chosen:
            damage, sentence = VERSIONS[name]
            number += 1
            next_version(data, 1, number, damage)
            eventually(lambda name=sentence: name in server.log, server.said)  # type: ignore[misc]
            eventually(lambda before=failed: server.metric("batchinfer_failed_loads_total", job="shop") > before)  # type: ignore[misc]
            failed = server.metric("batchinfer_failed_loads_total", job="shop")
            assert server.metric("batchinfer_degraded", job="shop") == 1
            assert sentence in server.get("/v1/jobs/shop").json["problem"]
            assert "Version 3 is served instead." in server.log
            assert (prediction(server), server.get("/readyz").status) == ("3", 200)
        point(data, 2)
        eventually(lambda: prediction(server) == "2", server.said)
        assert server.metric("batchinfer_degraded", job="shop") == 0

        (data.folder / CURRENT).unlink()
        eventually(lambda: f"{CURRENT} is missing" in server.log, server.said)
        assert prediction(server) == "2"
        data.root.rename(tmp_path / "away")
        eventually(lambda: "cannot be read: No such file or directory." in server.log, server.said)
        assert (prediction(server), server.get("/readyz").status) == ("2", 200)
        (tmp_path / "away").rename(data.root)
        eventually(lambda: "is there again." in server.log, server.said)
        point(data, 1)
        eventually(lambda: prediction(server) == "1", server.said)
        assert server.stop() == 0
    assert "Traceback" not in server.log


@pytest.mark.long
def test_a_start_on_damaged_data(data: JobData, tmp_path: Path) -> None:
    """A damaged current version gives way to the newest whole one; a damaged pin does not; other jobs are not held back."""
    for name in ("pinned", "whole"):
        shutil.copytree(data.folder, data.root / name)
        for folder in (data.root / name / "versions").iterdir():
            manifest = folder / "manifest.json"
            manifest.write_text(json.dumps(json.loads(manifest.read_bytes()) | {"job": name}), encoding="utf-8")
        point(JobData(data.root, name), 3)
    next_version(data, 3, 4, VERSIONS["truncated lookup file"][0])
    pinned = JobData(data.root, "pinned")
    point(pinned, 2, name=PIN)
    (folder_of(pinned, 2) / LOOKUP).unlink()
    with serving(data.root, tmp_path / "server", ready=False) as server:
        eventually(lambda: server.lookup("whole", id="a").status == 200, server.said)  # the last to be opened
        assert prediction(server) == "3"
        state = server.get("/v1/jobs/shop").json
        assert (state["version"], state["degraded"]) == (3, True)
        refused = server.lookup("pinned", id="a").problem
        assert refused == (503, "not-published", "The version of pinned that should be served is damaged.")
        assert server.get("/readyz").problem[:2] == (503, "not-published")
        assert "lookup.lmdb cannot be opened" in server.log
        assert "Nothing can be served." in server.log
        (data.root / "pinned" / PIN).unlink()
        eventually(lambda: server.get("/readyz").status == 200, server.said)
        assert server.lookup("pinned", id="a").json["prediction"] == "3"


@pytest.mark.long
def test_a_worker_that_is_killed_comes_back(data: JobData, tmp_path: Path) -> None:
    """The other goes on, a new one takes its place, no client hears that there is no such job, and no counter goes back."""
    with serving(data.root, tmp_path / "server", workers=2) as server:
        for _ in range(10):
            server.lookup("shop", id="a")
        eventually(lambda: server.metric_of_each("batchinfer_hits_total", job="shop") == {10})
        first, second = server.children()
        os.kill(first, signal.SIGKILL)
        answered: list[int] = []
        deadline = time.monotonic() + PATIENCE
        while len(set(server.children()) - {first}) < 2 or len(answered) < 100:
            assert time.monotonic() < deadline, server.log
            try:
                answered.append(server.lookup("shop", id="a").status)
            except OSError:  # it was on its way to the one that died
                answered.append(0)
        assert set(answered) <= {0, 200, 503}
        assert answered.count(200) > 90
        assert second in server.children()
        server.settled("shop", 3)
        hits = 10 + answered.count(200) - 3  # what the killed one answered last, it could not write down
        eventually(lambda: min(server.metric_of_each("batchinfer_hits_total", job="shop")) >= hits, server.said)
        assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.long
def test_what_is_in_flight_is_finished(data: JobData, tmp_path: Path, number: signal.Signals) -> None:
    """After SIGTERM or SIGINT nobody new is let in, but a request that has begun is answered, and its miss recorded."""
    body = b'{"queries": [{"id": "a"}, {"id": "not there"}]}'
    with serving(data.root, tmp_path / "server") as server, server.connect() as connection:
        connection.sendall(
            POST + b"connection: close\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")  # the request has begun
        connection.sendall(body[:10])
        server.process.send_signal(number)
        eventually(lambda: refused(server), server.said, 10)
        assert server.process.poll() is None
        connection.sendall(body[10:])
        answer = drained(connection, 10)
        assert status(answer) == 200
        assert b'"found":true' in answer
        assert server.process.wait(PATIENCE) == 0
    assert "Traceback" not in server.log
    [recorded] = [pq.read_table(path).to_pylist() for path in data.misses.glob("*.parquet")]
    assert [json.loads(miss["query"]) for miss in recorded] == [{"id": "not there"}]
    assert not list((tmp_path / "server").glob("batchinfer-serve-*"))  # nor is anything left in the temporary folder


def refused(server: Server) -> bool:
    """Whether nobody takes a new connection."""
    try:
        with server.connect(1) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            return not connection.recv(100)
    except OSError:
        return True
