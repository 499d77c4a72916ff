"""Look-ups, one and many: routes, bodies, headers, and what is refused."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from datetime import date
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode

import pytest

from batchinfer.serve.batch import read_queries
from batchinfer.serve.beside import Beside
from batchinfer.serve.lookup import names_etag
from batchinfer.serve.problems import Problem
from tests.factories import World
from tests.serve.jobs import TYPED
from tests.serving import Server


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
@pytest.mark.long
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
    assert null == {"found": False, "error": problem | {"detail": "text: expected a string, got null."}}
    sentence = 'A query is a mapping of columns to values, not ["Tee"].'
    assert sequence == {"found": False, "error": problem | {"detail": sentence}}
    assert (tea["found"], tea["query"], nobody) == (
        True,
        {"text": "Tee"},
        {"found": False, "query": {"text": "nobody"}},
    )


def test_batches_beyond_those_that_may_wait_are_refused() -> None:
    """They are looked up beside the event loop, a few at a time; the refusal says that it is for a moment."""
    full = Beside(threads=1, waiting=-1, done="looked up")
    with pytest.raises(Problem, match="Too much waits to be looked up: ask again in a moment") as refused:
        asyncio.run(full(read_queries, b'{"queries": []}'))
    assert refused.value.answer()[0] == 503
    assert asyncio.run(Beside()(read_queries, b'{"queries": []}')) == []
