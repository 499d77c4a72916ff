"""What only HTTP can bring: batches and their limits, keys, faults of the network, and services that are none."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer import AsyncLookup, Lookup
from batchinfer.client import encoding, http
from batchinfer.core.http_limits import MAX_BODY, MAX_QUERIES
from batchinfer.errors import NotPublished, StoreError, UsageError
from batchinfer.serve.apikeys import KeyFile
from tests.client.conftest import hits
from tests.client.scripted import HIT, STATE, Scripted, problem
from tests.serving import job, say, serving


@pytest.fixture
def lookup(server: Scripted) -> Iterator[Lookup]:
    """One that has asked before, so that it knows the lookup key."""
    with Lookup(server.url, "shop", timeout=1) as made:
        assert made.get(id="a") == HIT
        server.asked.clear()
        yield made


@given(sizes=st.lists(st.integers(1, 300_000), max_size=20), many=st.integers(0, 2500))
def test_batches_keep_within_the_limits(sizes: list[int], many: int) -> None:
    """In order, none lost, none empty, none of too many queries or bytes."""
    queries = [b"x" * size for size in sizes] + [b"{}"] * many
    made = list(encoding.in_portions(queries))
    assert [query for part in made for query in part] == queries
    assert all(0 < len(part) <= MAX_QUERIES for part in made)
    assert all(len(b'{"queries":[%b]}' % b",".join(part)) <= MAX_BODY for part in made)


@pytest.mark.long
def test_long_values_go_round_the_limit_of_a_url(tmp_path: Path) -> None:
    """A value that no URL can hold is looked up, many of them are split by size, and one of over 1 MiB is refused."""
    values = [f"{number}{'ü' * 100_000}" for number in range(8)]
    world = job(tmp_path / "home", "shop", {"id": values})
    say(world, "one", id=values)
    with serving(world.data.root, tmp_path / "server") as server, Lookup(server.url, "shop") as made:
        for key in ("x" * 8000, values[0]):
            assert (made.get(id=key) is None) == (key not in values)
        assert [hit["query"]["id"] for hit in hits(made.get_many([{"id": key} for key in values]))] == values
        with pytest.raises(UsageError, match=r"^A query has 1,048,585 bytes; the service takes 1,048,544\.$"):
            made.get(id="x" * (1 << 20))


@pytest.mark.long
def test_a_key_is_sent_and_a_wrong_one_told(tmp_path: Path) -> None:
    """With its key a Lookup answers; without, with a wrong one and for another job it says what is the matter."""
    world = job(tmp_path / "home", "shop", {"id": ["a"]})
    say(world, "one", id=["a"])
    key = KeyFile(world.data.root).add("test", None).key
    limited = KeyFile(world.data.root).add("limited", ["other"]).key
    with serving(world.data.root, tmp_path / "server") as server:
        with Lookup(server.url, "shop", key=key) as made:
            assert made.get(id="a") is not None
            assert made.get_many([{"id": "a"}]) == [made.get(id="a")]
        for wrong, sentence in (
            (None, r"^http://.* requires an API key: pass key=, made by batchinfer keys add\.$"),
            (f"{key}x", r"^The API key is wrong, or was revoked\.$"),
            (limited, "may not ask for the job shop"),
        ):
            with Lookup(server.url, "shop", key=wrong) as made, pytest.raises(UsageError, match=sentence):
                made.get(id="a")


@pytest.mark.parametrize("key", ["bi_1\n", "bi_ü"])
def test_a_key_that_no_header_can_hold_is_refused(key: str) -> None:
    """And not shown."""
    with pytest.raises(UsageError, match=r"^The API key has characters that no API key can have: copy it again\.$"):
        Lookup("http://127.0.0.1:1", "shop", key=key)


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://host:port", "https://host?x=1", "://", "http://[::1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """Before anything is asked."""
    with pytest.raises(UsageError, match=r"is not the address of a service: write http://HOST:PORT\.$"):
        Lookup(url, "shop")


@pytest.mark.parametrize("words", [{"timeout": 0}, {"timeout": -1}, {"retries": -1}])
def test_times_and_counts_below_nothing_are_refused(words: dict[str, Any]) -> None:
    """A time-out of 0 would never let an answer come."""
    with pytest.raises(UsageError, match=r"^A Lookup's timeout must be above 0, and its retries 0 or more\.$"):
        Lookup("http://127.0.0.1:1", "shop", **words)


def test_an_address_may_have_a_path(server: Scripted) -> None:
    """As it has behind a proxy."""
    with Lookup(f"{server.url}/predictions/", "shop", key="bi_1_x") as made:
        assert made.get(id="a b&c/ü") == HIT
    asked = [(method, path) for method, path, _, _ in server.asked]
    query = "id=a+b%26c%2F%C3%BC"
    assert asked == [("GET", "/predictions/v1/jobs/shop"), ("GET", f"/predictions/v1/jobs/shop/lookup?{query}")]
    assert {headers["authorization"] for _, _, headers, _ in server.asked} == {"Bearer bi_1_x"}


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_service_that_is_away_is_asked_again(server: Scripted, lookup: Lookup, status: int) -> None:
    """Also by a batch, and after a connection that broke off."""
    server.first((status, {}, b"<html>"), "drop", "drop", (status, {}, b""))
    assert lookup.get(id="a") == HIT
    assert len(server.asked) == 5
    server.first((status, {}, b"<html>"), (status, {}, b""))
    assert lookup.get_many([{"id": "a"}]) == [HIT]
    assert len(server.asked) == 3


def test_it_gives_up_in_the_end(server: Scripted, lookup: Lookup) -> None:
    """With the service's own sentence, if it has one."""
    server.first(*[(502, {}, b"<html>")] * 4)
    with pytest.raises(StoreError, match=rf"^{server.url} answered with the status 502: Bad Gateway$"):
        lookup.get(id="a")
    assert len(server.asked) == 4
    server.first(*[problem(503, "not-published", "It has just started.", **{"Retry-After": "0"})] * 4)
    with pytest.raises(NotPublished, match=r"^It has just started\.$"):
        lookup.get(id="a")
    assert len(server.asked) == 4


ASKS: list[Callable[[Any], Any]] = [
    lambda lookup: lookup.get(id="a"),
    lambda lookup: lookup.get_many([{"id": "a"}]),
    lambda lookup: lookup.match("a"),
    lambda lookup: lookup.match_many(["a"]),
]


@pytest.mark.long
def test_what_was_never_published_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every question about a job without a version is answered at once, with an error of its own, also asynchronously."""
    monkeypatch.setattr(http._Retry, "sleep", lambda *_: pytest.fail("it waited"))
    world = job(tmp_path / "home", "shop", {"id": ["a"]})
    world.data.bind(world.job.path)

    async def asynchronously(ask: Callable[[Any], Any]) -> Any:
        async with AsyncLookup(service.url, "shop") as lookup:
            return await ask(lookup)

    with serving(world.data.root, tmp_path / "server") as service, Lookup(service.url, "shop") as made:
        for ask in ASKS:
            with pytest.raises(NotPublished, match=r"^The job shop has no published version yet\.$"):
                ask(made)
            with pytest.raises(NotPublished, match=r"^The job shop has no published version yet\.$"):
                asyncio.run(asynchronously(ask))
        with pytest.raises(NotPublished):
            _ = made.version


def test_retry_after_is_honoured_within_the_time_out(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that asks for a minute gets no more than the time-out; what is no number is not waited for."""
    with Lookup(server.url, "shop", timeout=0.6) as made:
        made.get(id="a")
        server.first(
            (503, {"Retry-After": "60"}, b""), (503, {"Retry-After": "0"}, b""), (503, {"Retry-After": "Mon"}, b"")
        )
        waits: list[float] = []
        monkeypatch.setattr("urllib3.util.retry.time.sleep", waits.append)
        assert made.get(id="a") == HIT
        assert waits[0] == 0.6
        assert all(wait <= 0.6 for wait in waits)


@pytest.mark.parametrize("status", [500, 404, 301, 204])
def test_other_answers_are_not_asked_for_again(server: Scripted, lookup: Lookup, status: int) -> None:
    """What is not the service's own refusal is a StoreError with the address and the status; nothing is taken for a miss."""
    server.first((status, {"Location": "/elsewhere"}, b"" if status == 204 else b"<html>"))
    with pytest.raises(StoreError, match=rf"^{server.url} answered with the status {status}: "):
        lookup.get(id="a")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("body", "why"),
    [(b"<html>", "it is not JSON"), (b"[]", "no JSON object"), (b"\xff", "it is not UTF-8"), (b"{}", "it lacks ")],
)
def test_answers_of_something_else_are_told(server: Scripted, lookup: Lookup, body: bytes, why: str) -> None:
    """Such as a login page, or a service of another kind; in words, and not in those of Python."""
    server.first((200, {}, body))
    with pytest.raises(StoreError, match=rf"gave a reply that this batchinfer does not understand \({why}"):
        lookup.get_many([{"id": "a"}])
    server.first((200, {}, body))
    with Lookup(server.url, "shop") as made, pytest.raises(StoreError, match="does not understand"):
        made.get(id="a")


def test_a_reply_that_is_too_large_is_asked_for_in_halves(server: Scripted, lookup: Lookup) -> None:
    """A batch whose predictions are too long comes in parts, in order; one that cannot be halved is refused."""
    large = problem(413, "too-large", "The reply would be too large.")
    server.first(large)
    found = lookup.get_many([{"id": name} for name in "abc"])
    assert [hit["query"]["id"] for hit in hits(found)] == ["a", "b", "c"]
    assert [len(json.loads(body)["queries"]) for *_, body in server.asked] == [3, 1, 2]
    server.first(large)
    with pytest.raises(UsageError, match="would be too large"):
        lookup.get_many([{"id": "a"}])


def test_a_batch_with_too_few_results_is_told(server: Scripted, lookup: Lookup) -> None:
    """Answers must not slip to other queries."""
    server.first((200, {}, json.dumps({"version": 1, "results": [HIT | {"found": True}]}).encode()))
    with pytest.raises(StoreError, match="1 results for 2 queries"):
        lookup.get_many([{"id": "a"}, {"id": "b"}])


def test_nobody_there(server: Scripted) -> None:
    """A StoreError that names the address and the cause, after the tries that were allowed."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listening
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        sentence = rf"^{url} cannot be reached after 3 tries: .*refused\.$"
        with Lookup(url, "shop", retries=2) as made, pytest.raises(StoreError, match=sentence):
            made.get(id="a")
    sentence = r"^http://nosuch\.invalid cannot be reached: "
    with Lookup("http://nosuch.invalid", "shop", retries=0) as made, pytest.raises(StoreError, match=sentence):
        made.get(id="a")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="a certificate is made with openssl")
def test_an_encrypted_connection_needs_a_certificate_that_is_trusted(
    server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's is a StoreError that says so; with one that the system trusts it answers."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = server.url.replace("http:", "https:")
    with Lookup(url, "shop", retries=0) as made, pytest.raises(StoreError, match="certificate verify failed"):
        made.get(id="a")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Lookup(url, "shop", retries=0) as made:
        assert made.get(id="a") == HIT


def test_no_answer_in_time(server: Scripted) -> None:
    """The time-out holds for each try."""
    with Lookup(server.url, "shop", timeout=0.3, retries=1) as made:
        server.first("hang")
        assert made.get(id="a") == HIT
        server.first("hang", "hang")
        with pytest.raises(StoreError, match=r"cannot be reached after 2 tries: timed out\.$"):
            made.get(id="a")


def test_a_connection_that_was_closed_while_idle_is_never_an_error(server: Scripted) -> None:
    """Not even without retries, and not even if it closes just as the request is under way."""
    server.idle = 0.1
    with Lookup(server.url, "shop", retries=0) as made:
        for _ in range(3):
            assert made.get(id="a") == HIT
            before = server.connections
            time.sleep(0.4)
        assert made.get_many([{"id": "a"}]) == [HIT]
        assert server.connections > before
        server.idle = 60
        server.first("drop")
        assert made.get(id="a") == HIT


def test_connections_are_used_again(server: Scripted, lookup: Lookup) -> None:
    """A hundred look-ups in turn need one connection, and the lookup key is asked for once."""
    for _ in range(100):
        assert lookup.get(id="a") == HIT
    assert server.connections == 1
    assert len(server.asked) == 100


def test_a_bad_query_costs_one_look_at_the_lookup_key(server: Scripted, lookup: Lookup) -> None:
    """The key may have changed; what it refuses is not sent."""
    with pytest.raises(UsageError, match="odd is not part of it"):
        lookup.get(id="a", odd=1)
    assert [path for _, path, _, _ in server.asked] == ["/v1/jobs/shop"]


def test_a_bad_query_among_many_is_not_sent(server: Scripted, lookup: Lookup) -> None:
    """The others are, in one batch; what the service refuses since its key is another one now stands in its place, too."""
    reply = {"found": False, "error": {"type": "urn:batchinfer:bad-query", "detail": "It is another key now."}}
    body = json.dumps({"version": 1, "results": [HIT | {"found": True}, reply]}).encode()
    lookup.get(id="a")
    server.asked.clear()
    server.first((200, {}, json.dumps(STATE).encode()), (200, {}, body))
    odd, hit, refused = lookup.get_many([{"odd": 1}, {"id": "a"}, {"id": "b"}])
    assert "odd is not part of it" in str(odd)
    assert (hit, type(refused), str(refused)) == (HIT, UsageError, "It is another key now.")
    assert [json.loads(sent)["queries"] for *_, sent in server.asked if sent] == [[{"id": "a"}, {"id": "b"}]]


def test_a_job_of_which_nothing_is_whole(server: Scripted) -> None:
    """Is told with what the service says of it."""
    server.first((200, {}, json.dumps(STATE | {"version": None, "key": [], "problem": "It is damaged."}).encode()))
    sentence = rf"^{server.url} can serve nothing of the job shop: It is damaged\.$"
    with Lookup(server.url, "shop") as made, pytest.raises(StoreError, match=sentence):
        made.get(id="a")


def test_a_service_that_is_just_starting_is_waited_for(server: Scripted) -> None:
    """It knows the job and has not opened it yet."""
    empty = STATE | {"version": None, "key": []}
    server.first(
        (200, {}, json.dumps(empty).encode()),
        problem(503, "not-published", "shop: it has just started.", **{"Retry-After": "0"}),
        problem(400, "bad-query", "The lookup key of shop is id: id is missing."),
    )
    with Lookup(server.url, "shop") as made:
        assert made.get(id="a") == HIT
