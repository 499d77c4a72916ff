"""The lookup service as its clients meet it: routes, bodies, headers, metrics and logs of a real server."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
import socket
from collections.abc import Iterator
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pyarrow as pa
import pytest

from batchinfer.serve.apikeys import KeyFile
from batchinfer.serve.lookup import names_etag
from tests.factories import LENIENT, World, imports_job, model_job
from tests.serving import Reply, Server, eventually, moved, samples_of, serving
from tests.tiny import Cli

NORMALIZED = {"path": "queries.parquet", "key": ["text"], "normalize": ["nfkc", "casefold", "trim"]}
NOON = datetime(2026, 1, 31, 12, 30, 0, 123456, tzinfo=UTC)
TYPED: dict[str, list[Any]] = {
    "näme & co": ["ü +%&=?#/\\\"'", " a ", "日本語 😀"],
    "n": [-(2**63), 7, 2**62],
    "f": [1.5, -0.0, 1e-320],
    "b": [True, False, True],
    "d": [date(2026, 1, 31), date(1, 1, 1), date(9999, 12, 31)],
    "t": [NOON, datetime(1970, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)],
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A job that scores choices, whose key is made comparable. It is published, and has one entry without a prediction."""
    world = model_job(
        tmp_path_factory.mktemp("shop"), {"text": ["Tee", "Kaffee", "Saft", "Bier"]}, input=NORMALIZED, gate=LENIENT,
        output={"type": "choice", "choices": ["Ja", "Nein"]}, serve={"max_age": "5m"},
    )  # fmt: skip
    world = moved(world, tmp_path_factory.mktemp("data") / "home")
    world.answer(lambda row: None if row["text"] == "Bier" else [math.log(0.75), math.log(0.25)])
    world.publish()
    return world


@pytest.fixture(scope="module")
def typed(shop: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A job whose key has a column of each kind, and whose predictions are JSON."""
    world = imports_job(
        tmp_path_factory.mktemp("typed"), pa.table(TYPED), name="typed", gate=LENIENT,
        input={"path": "queries.parquet", "key": list(TYPED)},
        output={"type": "json", "schema": {"type": "object"}},
    )  # fmt: skip
    world = moved(world, shop.data.root)
    world.take_in(pa.table(TYPED | {"prediction": ['{"é": [1, null]}', '{"a": "b"}', "{}"]}))
    world.publish()
    return world


@pytest.fixture(scope="module")
def server(shop: World, typed: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of both, and of a job that has published nothing, with two workers and an access log."""
    (shop.data.root / "empty").mkdir()
    (shop.data.root / "empty" / "job.json").write_text("{}")
    with serving(shop.data.root, tmp_path_factory.mktemp("server"), "--access-log", workers=2) as server:
        yield server


def columns(number: int) -> dict[str, Any]:
    """The lookup key of one entry of `typed`."""
    return {name: values[number] for name, values in TYPED.items()}


def in_json(query: dict[str, Any]) -> dict[str, Any]:
    """The same as JSON has it."""
    return {name: value.isoformat() if isinstance(value, date) else value for name, value in query.items()}


def in_url(query: dict[str, Any]) -> str:
    """The same as a URL has it."""
    texts = {name: str(value).lower() if isinstance(value, bool) else value for name, value in in_json(query).items()}
    return urlencode(texts)


def test_a_hit_is_the_bytes_that_publishing_made(server: Server, shop: World) -> None:
    """The body of a hit is what a look-up in the version gives, byte by byte, with the headers of the contract."""
    reply = server.lookup("shop", text="Tee")
    assert reply.status == 200
    assert reply.body == shop.get(text="Tee")
    content = reply.json
    assert list(content) == ["job", "query", "prediction", "scores", "score", "source", "model", "generated_at"]
    assert content["query"] == {"text": "Tee"}
    assert (content["job"], content["prediction"], content["source"]) == ("shop", "Ja", "model")
    assert content["scores"] == pytest.approx({"Ja": 0.75, "Nein": 0.25})
    assert content["score"] == pytest.approx(0.75)
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["content-length"] == str(len(reply.body))
    assert reply.headers["cache-control"] == "max-age=300"
    assert reply.headers["batchinfer-version"] == str(server.version("shop"))
    assert reply.headers["etag"] == f'"{hashlib.sha256(reply.body).hexdigest()[:32]}"'
    assert parsedate_to_datetime(reply.headers["date"])
    assert "content-encoding" not in reply.headers


def test_a_miss_is_an_honest_404(server: Server) -> None:
    """A key that there is not is a problem of the kind miss, from the version that was asked, not to be kept."""
    for text in ("Wasser", "Bier", "T ee", ""):
        reply = server.lookup("shop", text=text)
        assert reply.problem == (404, "miss", "shop has no prediction for this query.")
        assert reply.headers["batchinfer-version"] == str(server.version("shop"))
        assert reply.headers["cache-control"] == "no-cache"
        assert "etag" not in reply.headers


@pytest.mark.parametrize("number", [0, 1, 2])
def test_keys_of_every_kind_are_found(server: Server, typed: World, number: int) -> None:
    """Texts with any characters, integers, numbers, booleans, dates and times are found by URL and in a batch alike."""
    query = columns(number)
    expected = typed.get(**query)
    assert expected is not None
    reply = server.get(f"/v1/jobs/typed/lookup?{in_url(query)}")
    assert (reply.status, reply.body) == (200, expected)
    backwards = "&".join(reversed(in_url(query).split("&"))).replace("+", "%20")
    assert server.get(f"/v1/jobs/typed/lookup?{backwards}").body == expected
    [result] = server.batch("typed", [in_json(query)]).json["results"]
    assert result == {"found": True} | json.loads(expected)


def test_a_column_that_is_a_little_off_is_a_miss(server: Server) -> None:
    """A key is found only if all of its columns are right."""
    query = columns(0)
    for change in ({"n": 8}, {"f": 1.25}, {"b": False}, {"d": date(2026, 1, 30)}, {"näme & co": "ü"}):
        assert server.get(f"/v1/jobs/typed/lookup?{in_url(query | change)}").problem[:2] == (404, "miss")


@pytest.mark.parametrize("text", ["tee", " TEE\n", "\uff34\uff45\uff45", "Tee\u3000"])
def test_spellings_that_the_job_makes_equal_are_found(server: Server, shop: World, text: str) -> None:
    """input.normalize holds for look-ups too, by URL and in a batch."""
    assert server.lookup("shop", text=text).body == shop.get(text="Tee")
    assert server.batch("shop", [{"text": text}]).json["results"][0]["query"] == {"text": "Tee"}


@pytest.mark.parametrize("condition", ["{etag}", "W/{etag}", '"other", {etag}', '"other",W/{etag} , "x"', "*"])
def test_a_copy_that_still_holds_is_not_sent_again(server: Server, condition: str) -> None:
    """If-None-Match with the entry's ETag, in a list, weak, or * gets 304 without a body, with the caching headers."""
    hit = server.lookup("shop", text="Tee")
    reply = server.lookup("shop", {"if-none-match": condition.format(etag=hit.headers["etag"])}, text="Tee")
    assert (reply.status, reply.body) == (304, b"")
    for name in ("etag", "cache-control", "batchinfer-version"):
        assert reply.headers[name] == hit.headers[name]


@pytest.mark.parametrize("condition", ['"other"', "", '"', "etag", 'W/"other", "more"', "{bare}"])
def test_a_copy_that_holds_no_more_is_replaced(server: Server, condition: str) -> None:
    """Another ETag, or something that is none, gets the body."""
    hit = server.lookup("shop", text="Tee")
    bare = hit.headers["etag"].strip('"')
    reply = server.lookup("shop", {"if-none-match": condition.format(bare=bare)}, text="Tee")
    assert (reply.status, reply.body) == (200, hit.body)


def test_a_miss_is_not_conditional(server: Server) -> None:
    """If-None-Match: * does not make a 304 of a miss."""
    assert server.lookup("shop", {"if-none-match": "*"}, text="Wasser").problem[1] == "miss"


def test_weak_comparison() -> None:
    """ETags are compared as RFC 9110 has it for If-None-Match; a star counts alone only."""
    assert names_etag('W/"a"', '"a"')
    assert not names_etag('*, "b"', '"a"')


def test_an_etag_survives_a_publish_that_did_not_change_the_entry(server: Server, shop: World) -> None:
    """After a publish the version header is new, the changed entry's ETag too, and the other's is the same."""
    before = {text: server.lookup("shop", text=text) for text in ("Tee", "Kaffee")}
    shop.take_in({"text": ["Kaffee"], "prediction": ["Nein"]}, "anna")
    version = shop.publish().version
    server.settled("shop", version)
    tea, coffee = (server.lookup("shop", text=text) for text in ("Tee", "Kaffee"))
    assert tea.headers["batchinfer-version"] == coffee.headers["batchinfer-version"] == str(version)
    assert (tea.body, tea.headers["etag"]) == (before["Tee"].body, before["Tee"].headers["etag"])
    assert server.lookup("shop", {"if-none-match": before["Tee"].headers["etag"]}, text="Tee").status == 304
    assert coffee.headers["etag"] != before["Kaffee"].headers["etag"]
    assert server.lookup("shop", {"if-none-match": before["Kaffee"].headers["etag"]}, text="Kaffee").status == 200
    assert (coffee.json["prediction"], coffee.json["source"], coffee.json["model"]) == ("Nein", "import", None)


def test_head_is_get_without_a_body(server: Server) -> None:
    """HEAD has the status and the headers of GET, for hits, misses and refusals."""
    for path in ("/v1/jobs/shop/lookup?text=Tee", "/v1/jobs/shop/lookup?text=x", "/v1/jobs/shop/lookup", "/livez",
                 "/v1/jobs/nosuch/lookup?text=Tee"):  # fmt: skip
        got, head = server.get(path), server.request("HEAD", path)
        assert (head.status, head.body) == (got.status, b"")
        for reply in (got, head):
            reply.headers.pop("date")
        assert head.headers == got.headers
    raw = server.raw(b"HEAD /v1/jobs/shop/lookup?text=Tee HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert raw.endswith(b"\r\n\r\n")  # not a byte of a body on the wire


def test_a_batch_keeps_the_order(server: Server, shop: World) -> None:
    """Hits and misses come in the order asked, hits with the very bytes of the version, all from one version."""
    texts = ["Wasser", "Tee", "Bier", "Tee", "", "KAFFEE", "Saft"]
    reply = server.batch("shop", [{"text": text} for text in texts])
    version = server.version("shop") or 0
    parts = []
    for text in texts:
        body = shop.get(text=text)
        missed = json.dumps({"found": False, "query": {"text": text}}, separators=(",", ":")).encode()
        parts.append(missed if body is None else b'{"found":true,' + body[1:])
    assert reply.status == 200
    assert reply.body == b'{"version":%d,"results":[%b]}' % (version, b",".join(parts))
    assert reply.headers["batchinfer-version"] == str(version)
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["vary"] == "accept-encoding"


def test_a_reply_is_json_whatever_was_asked(server: Server) -> None:
    """JSON has no infinity: a number that is too large for a double is repeated as such a number."""
    asked = in_json(columns(0))
    for written in ("1e999", "-1e999"):
        body = json.dumps({"queries": [asked | {"f": 7.5}]}).replace("7.5", written).encode()
        reply = server.batch("typed", body)
        assert (reply.status, reply.json["results"][0]["found"]) == (200, False)
        assert b"Infinity" not in reply.body
        assert reply.json["results"][0]["query"] == asked | {"f": float(written)}


def test_a_batch_may_be_empty_or_full(server: Server) -> None:
    """None and 1,000 queries are a batch; 1,001 are refused."""
    assert server.batch("shop", []).json["results"] == []
    full = server.batch("shop", [{"text": f"query {number}"} for number in range(1000)])
    assert [result["query"]["text"] for result in full.json["results"]] == [f"query {number}" for number in range(1000)]
    reply = server.batch("shop", [{"text": "x"}] * 1001)
    assert reply.problem == (413, "too-large", "A batch may have 1,000 queries; this one has 1,001.")


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip", True), ("br, GZIP;q=0.5", True), ("*", True), ("gzip;q=1.0, identity;q=0", True),
        ("", False), ("br", False), ("gzip;q=0", False), ("gzip; q=0.000", False), ("*;q=0", False), ("gzip;q=0, *", False),
        ("identity", False), ("notgzip", False),
    ],
)  # fmt: skip
def test_batches_are_compressed_for_who_takes_it(server: Server, accepted: str, packed: bool) -> None:
    """Compressed replies come to clients that accept it, and to no others; what is inside is the same."""
    plain = server.batch("shop", [{"text": "Tee"}] * 20)
    reply = server.batch("shop", [{"text": "Tee"}] * 20, accept_encoding=accepted)
    assert reply.headers.get("content-encoding") == ("gzip" if packed else None)
    assert (gzip.decompress(reply.body) if packed else reply.body) == plain.body
    assert reply.headers["vary"] == "accept-encoding"


def test_small_batches_and_single_hits_are_never_compressed(server: Server, shop: World) -> None:
    """Compressing them costs more than it saves, and would cost single hits their strong ETag."""
    assert "content-encoding" not in server.batch("shop", [{"text": "Tee"}], accept_encoding="gzip").headers
    reply = server.lookup("shop", {"accept-encoding": "gzip"}, text="Tee")
    assert "content-encoding" not in reply.headers
    assert reply.body == shop.get(text="Tee")


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v1/jobs/nosuch/lookup?text=x", 404, "unknown-job"), ("POST", "/v1/jobs/nosuch/lookup", 404, "unknown-job"),
        ("GET", "/v1/jobs/nosuch", 404, "unknown-job"), ("GET", "/", 404, "not-found"), ("GET", "/v1", 404, "not-found"),
        ("GET", "/v1/jobs/shop/lookup/", 404, "not-found"), ("GET", "/v1/jobs/shop/match?text=x", 404, "no-match-section"),
        ("GET", "/v1/jobs/shop/lookup", 400, "bad-query"), ("GET", "/v1/jobs/shop/lookup?text=a&text=b", 400, "bad-query"),
        ("GET", "/v1/jobs/shop/lookup?txt=a", 400, "bad-query"), ("POST", "/v1/jobs/shop/lookup", 400, "bad-body"),
        ("PUT", "/v1/jobs/shop/lookup", 405, "method-not-allowed"), ("POST", "/v1/jobs", 405, "method-not-allowed"),
        ("DELETE", "/v1/jobs/shop", 405, "method-not-allowed"), ("OPTIONS", "/metrics", 405, "method-not-allowed"),
        ("FOO", "/v1/jobs/shop/lookup?text=Tee", 405, "method-not-allowed"),
        ("GET", "/v1/jobs/empty/lookup?text=x", 503, "not-published"), ("POST", "/v1/jobs/empty/lookup", 400, "bad-body"),
    ],
)  # fmt: skip
def test_each_refusal_is_a_problem(server: Server, method: str, path: str, status: int, kind: str) -> None:
    """Whatever is wrong, the answer is application/problem+json with the right status and type, not to be stored."""
    reply = server.request(method, path)
    assert reply.problem[:2] == (status, kind)
    assert reply.headers["cache-control"] == "no-store"
    if status == 405:
        assert "POST" in reply.headers["allow"] or "GET" in reply.headers["allow"]


def test_a_refusal_names_what_is_wrong(server: Server) -> None:
    """The detail of a refusal is the sentence that the query's reader has for it; in a batch the others are answered."""
    refused = server.get("/v1/jobs/shop/lookup?sentence=x")
    assert refused.problem[2] == "The lookup key of shop is text: text is missing and sentence is not part of it."
    mixed = server.batch("shop", [{"text": None}, {"text": "Tee"}, ["Tee"], {"text": "nobody"}])
    assert mixed.status == 200
    null, tea, sequence, nobody = mixed.json["results"]
    problem = {"type": "urn:batchinfer:bad-query", "title": "The query does not fit", "status": 400}
    assert null == {"found": False, "error": problem | {"detail": "text: expected a string, got None."}}
    sentence = "A query is a mapping of columns to values, not ['Tee']."
    assert sequence == {"found": False, "error": problem | {"detail": sentence}}
    assert (tea["found"], tea["query"], nobody) == (
        True,
        {"text": "Tee"},
        {"found": False, "query": {"text": "nobody"}},
    )


def test_what_is_served_is_listed(server: Server, shop: World, typed: World) -> None:
    """GET /v1/jobs tells of each job which version is served, how old it is, and the columns of its key."""
    jobs = {job["job"]: job for job in server.get("/v1/jobs").json["jobs"]}
    assert list(jobs) == ["empty", "shop", "typed"]
    assert jobs["empty"] == {
        "job": "empty", "version": None, "created_at": None, "age_seconds": None, "entries": None, "key": [], "pinned": False,
        "degraded": False, "problem": None, "last_success_at": None, "failed_loads": 0,
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
    assert server.get("/readyz").json == {"status": "ready"}
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


def counted(reply: Reply) -> dict[str, float]:
    """What an answer to /metrics says that the workers together counted of the job shop's look-ups."""
    samples = samples_of(reply)
    found = {
        f"{sample.name} {sample.labels['status']}": sample.value
        for sample in samples
        if sample.name == "batchinfer_requests_total"
        and sample.labels["job"] == "shop"
        and sample.labels["route"] == "lookup"
    }
    for name in ("hits_total", "misses_total", "request_seconds_count"):
        found[name] = sum(
            sample.value for sample in samples
            if sample.name == f"batchinfer_{name}" and sample.labels["job"] == "shop"
            and sample.labels.get("route", "lookup") == "lookup"
        )  # fmt: skip
    return found


def test_metrics_are_those_of_all_workers(server: Server) -> None:
    """Whichever worker answers /metrics, every request of every worker is in, once, when all have written their numbers."""
    assert len(server.children()) == 2
    numbers_written(server)
    before, other = map(counted, server.each_worker("/metrics"))
    assert before == other
    etag = server.lookup("shop", text="Tee").headers["etag"]
    for _ in range(9):
        server.lookup("shop", text="Tee")
    for _ in range(5):
        server.lookup("shop", text="Wasser")
    server.request("HEAD", "/v1/jobs/shop/lookup?text=Tee")
    server.lookup("shop", {"if-none-match": etag}, text="Tee")
    server.get("/v1/jobs/shop/lookup")
    server.batch("shop", [{"text": "Tee"}, {"text": "Saft"}, {"text": "Wasser"}])
    expected = {
        "batchinfer_requests_total 200": 12, "batchinfer_requests_total 404": 5, "batchinfer_requests_total 304": 1,
        "batchinfer_requests_total 400": 1, "hits_total": 14, "misses_total": 6, "request_seconds_count": 19,
    }  # fmt: skip
    numbers_written(server)
    for _ in range(4):  # it stays so
        for now in map(counted, server.each_worker("/metrics")):
            assert {name: now.get(name, 0) - before.get(name, 0) for name in expected} == expected


def numbers_written(server: Server) -> None:
    """Waits until each worker has written its numbers twice: the second file has all that was counted until now."""

    def files() -> dict[str, int]:
        found = {path.stem: path.stat().st_mtime_ns for path in server.folder.glob("batchinfer-serve-*/metrics/*.json")}
        return {worker: found.get(worker, 0) for worker in map(str, server.children())}

    for _ in range(2):
        before = files()
        eventually(lambda before=before: all(files()[worker] != at for worker, at in before.items()), server.said, 10)  # type: ignore[misc]


def test_every_metric_is_there(server: Server, shop: World) -> None:
    """/metrics is what Prometheus reads, with each metric of the docs and the right values for each job."""
    (shop.data.folder / "last_run.json").write_text('{"run_id": 1, "finished_at": "2026-11-22T01:00:00+00:00"}')
    eventually(lambda: all(server.metric_of_each("batchinfer_last_success_timestamp_seconds", job="shop")))
    reply = server.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=")
    page = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`(batchinfer_\w+)`", page.split("## Metrics")[1]))
    assert documented == set(re.findall(r"# TYPE (\w+)", reply.body.decode()))
    assert server.metric("batchinfer_last_success_timestamp_seconds", job="shop") == 1795309200
    assert server.metric("batchinfer_version", job="shop") == server.version("shop")
    assert server.metric("batchinfer_entries", job="typed") == 3
    assert 0 <= server.metric("batchinfer_version_age_seconds", job="typed") < 600
    for name in ("pinned", "degraded", "failed_loads_total", "misses_dropped_total"):
        found = {
            sample.labels["job"]: sample.value for sample in server.samples() if sample.name == f"batchinfer_{name}"
        }
        # Other tests ask for numbers without end, which cannot be recorded.
        assert found["typed"] == 0 or name == "misses_dropped_total"
    buckets = [sample for sample in server.samples() if sample.name == "batchinfer_request_seconds_bucket"
               and sample.labels["job"] == "shop" and sample.labels["route"] == "lookup"]  # fmt: skip
    assert [sample.value for sample in buckets] == sorted(sample.value for sample in buckets)
    assert buckets[-1].labels["le"] == "+Inf"


def test_names_that_clients_make_up_are_no_labels(server: Server) -> None:
    """Requests for unknown jobs and pages are counted without their names: labels must stay few."""
    for path in ("/v1/jobs/made-up/lookup?text=x", "/v1/jobs/made-up", "/made-up", "/v1/made-up"):
        server.get(path)
    assert b"made-up" not in server.get("/metrics").body


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


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of two jobs that has no API keys yet."""
    root = tmp_path_factory.mktemp("guarded")
    for name in ("shop", "shoes"):
        world = imports_job(root / name, {"id": ["a"]}, name=name, gate=LENIENT)
        world.take_in({"id": ["a"], "prediction": ["x"]})
        world.publish()
        moved(world, root / "home")
    with serving(root / "home", root / "server") as server:
        yield server


OPEN = ("/livez", "/readyz", "/docs", "/openapi.json")
CLOSED = (
    "/v1/jobs",
    "/v1/jobs/shop",
    "/v1/jobs/shop/lookup?id=a",
    "/v1/jobs/nosuch/lookup?id=a",
    "/v1/jobs/nosuch",
    "/metrics",
)


def with_key(server: Server, path: str, key: str | None) -> Reply:
    """What a client with this key gets."""
    return server.request("GET", path, headers={} if key is None else {"authorization": f"Bearer {key}"})


def test_keys_are_asked_for_from_the_first_on(guarded: Server) -> None:
    """A running service picks up the first key, a limited one, and a revocation, each within a second or so."""
    file = KeyFile(guarded.data)
    assert guarded.lookup("shop", id="a").status == 200
    made = file.add("search", None)
    record, key = made.record, made.key
    eventually(lambda: guarded.lookup("shop", id="a").status == 401, seconds=5)
    for path in CLOSED:
        refused = with_key(guarded, path, None)
        assert refused.problem[:2] == (401, "no-key")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert with_key(guarded, path, key[:-1] + ("a" if key[-1] != "a" else "b")).problem[:2] == (401, "no-key")
        assert with_key(guarded, path, key).status == (404 if "nosuch" in path else 200)
    for path in OPEN:
        assert with_key(guarded, path, None).status == 200
    assert guarded.batch("shop", [{"id": "a"}]).problem[:2] == (401, "no-key")
    assert guarded.batch("shop", [{"id": "a"}], authorization=f"Bearer {key}").status == 200
    assert guarded.request("HEAD", "/v1/jobs/shop/lookup?id=a").status == 401

    limited = file.add("shoe shelf", ["shoes"]).key
    eventually(lambda: with_key(guarded, "/v1/jobs/shoes/lookup?id=a", limited).status == 200, seconds=5)
    for path in ("/v1/jobs/shop", "/v1/jobs/shop/lookup?id=a", "/v1/jobs/nosuch", "/metrics"):
        assert with_key(guarded, path, limited).problem[:2] == (403, "forbidden")
    assert guarded.batch("shop", [{"id": "a"}], authorization=f"Bearer {limited}").problem[:2] == (403, "forbidden")
    assert [job["job"] for job in with_key(guarded, "/v1/jobs", limited).json["jobs"]] == ["shoes"]

    file.revoke(record.id)
    eventually(lambda: with_key(guarded, "/v1/jobs/shop", key).status == 401, seconds=5)
    assert with_key(guarded, "/v1/jobs/shoes", limited).status == 200

    good = file.path.read_bytes()
    file.path.write_bytes(b"{")
    eventually(lambda: "is damaged" in guarded.log, seconds=5)
    assert guarded.lookup("shoes", id="a").status == 401
    assert with_key(guarded, "/v1/jobs/shoes/lookup?id=a", limited).status == 200
    file.path.write_bytes(good)


def test_another_address_wants_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a key, serve refuses to listen where others can reach it, with exit code 2."""
    batchinfer = Cli(monkeypatch, capsys, tmp_path / "home")
    batchinfer.data.mkdir()
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org", "127.0.0.1.example.org"):  # noqa: S104
        done = batchinfer("serve", "--host", host)
        assert done.code == 2
        assert done.sentence == (
            f"{host} can be reached by others, and there are no API keys: make one with batchinfer keys add, "
            "or pass --no-auth if something else keeps strangers out."
        )


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--host", "192.0.2.1", "--no-auth"], 2, "Nothing can listen on 192.0.2.1:8080: "),
        (["--host", "a" * 100, "--no-auth"], 2, f"Nothing can listen on {'a' * 100}:8080: it is not a host name."),
        (["--host", "no.such.host.invalid", "--no-auth"], 2, "Nothing can listen on no.such.host.invalid:8080: "),
    ],
)
def test_an_address_that_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int,
    sentence: str,
) -> None:  # fmt: skip
    """An address of another machine, or none at all, is one sentence and exit code 2."""
    batchinfer = Cli(monkeypatch, capsys, tmp_path / "home")
    batchinfer.data.mkdir()
    done = batchinfer("serve", *arguments)
    assert done.code == code
    assert done.sentence.startswith(sentence)


def test_a_port_that_is_taken(
    guarded: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second service on the same port says so instead of sharing it."""
    batchinfer = Cli(monkeypatch, capsys, tmp_path / "home")
    batchinfer.data.mkdir()
    done = batchinfer("serve", "--port", guarded.port)
    assert done.code == 2
    assert done.sentence.startswith(f"Nothing can listen on 127.0.0.1:{guarded.port}: Address already in use.")


def test_no_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A data folder that there is not is one sentence, and exit code 6."""
    done = Cli(monkeypatch, capsys, tmp_path / "home")("serve")
    assert (done.code, done.sentence) == (
        6, f"There is no data folder {tmp_path / 'home'}: batchinfer run makes it, or choose another with --home.",
    )  # fmt: skip


@pytest.mark.parametrize("with_keys", [False, True])
def test_on_another_address(tmp_path: Path, with_keys: bool) -> None:
    """On all addresses, --no-auth lets everybody in, and otherwise nobody comes in without a key."""
    data = tmp_path / "home"
    data.mkdir()
    key = KeyFile(data).add("search", None).key if with_keys else None
    options = ("--host", "0.0.0.0", *([] if with_keys else ["--no-auth"]))  # noqa: S104
    with serving(data, tmp_path / "server", *options) as server:
        assert with_key(server, "/v1/jobs", None).status == (401 if with_keys else 200)
        assert with_key(server, "/v1/jobs", key).json == {"jobs": []}
        assert server.stop() == 0
