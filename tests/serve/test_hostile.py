"""Requests that ask for as much as they can, against a real server: each ends in a bounded answer, and the others are served."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batchinfer.core.http_limits import MATCH_WAITING
from batchinfer.serve.apikeys import KeyFile
from tests.serving import Reply, Server, eventually, names_job, serving

MATCH = {"terms": ["prediction.names"], "concept": "thing", "language": "language", "min_length": 1}
NESTED = {("laugh", "zh"): ["哈" * number for number in range(1, 401)], ("gift", "en"): ["gift"]}
ALLOWED = 300 << 20  # bytes by which a worker may grow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions with many terms that hold each other; of one all matches are reported, of the other those that do not overlap."""
    root = tmp_path_factory.mktemp("data") / "home"
    key = {"path": "queries.parquet", "key": ["thing", "language"], "normalize": ["nfkc"]}
    for name, overlaps in (("all", True), ("apart", False)):
        names_job(root, name, NESTED, match=MATCH | {"overlaps": overlaps}, input=key)
    return root


@pytest.fixture(scope="module")
def server(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One worker, which must live to the end."""
    with serving(home, tmp_path_factory.mktemp("server")) as server:
        workers = server.children()
        yield server
        assert server.children() == workers
        assert "Traceback" not in server.log


def peak(server: Server) -> int:
    """The most bytes of memory that its worker has had."""
    [worker] = server.children()
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{worker}/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


TEXTS = ["哈" * 349_000, "哈" * 1_000, "gift " * 200_000, "a" + "\u0301\u0316" * 170_000]


@pytest.mark.parametrize("job", ["all", "apart"])
@pytest.mark.long
def test_a_text_cannot_take_a_worker_down(server: Server, job: str) -> None:
    """Whatever stands in a megabyte, it is matched or refused with a sentence, within bounded memory."""
    before = peak(server)
    for text in TEXTS:
        reply = server.matches(job, json.dumps({"texts": [text]}, ensure_ascii=False).encode())
        assert reply.status == 200 or reply.problem[:2] == (413, "too-large")
    assert server.match(job, "哈" * 600).status in (200, 413)
    assert server.matches(job, ["哈" * 300] * 1000).problem[:2] == (413, "too-large")
    assert peak(server) < before + ALLOWED
    assert server.match(job, "a gift").json["matches"][0]["concept"] == "gift"


@pytest.mark.long
def test_a_value_with_very_many_marks(server: Server) -> None:
    """Normalizing takes the square of the marks in a row: a value of half a million is looked up as it is."""
    query = {"thing": "a" + "\u0301\u0316" * 250_000, "language": "en"}
    reply = server.batch("all", json.dumps({"queries": [query]}, ensure_ascii=False).encode())
    assert (reply.status, reply.json["results"][0]["found"]) == (200, False)


@pytest.mark.long
def test_keys_and_look_ups_do_not_wait_for_matches(home: Path, tmp_path: Path) -> None:
    """While clients keep all of a worker's threads busy with long texts, others are answered and a revoked key ends."""
    keys = KeyFile(home)
    good, other = keys.add("good", None), keys.add("other", None)
    mine, theirs = ({"authorization": f"Bearer {made.key}"} for made in (good, other))
    body = json.dumps({"texts": ["哈" * 340_000, "gift " * 10]}, ensure_ascii=False).encode()
    over, replies = threading.Event(), list[Reply]()
    with serving(home, tmp_path / "server") as server, ThreadPoolExecutor(MATCH_WAITING + 8) as pool:

        def flood() -> None:
            while not over.is_set():
                replies.append(server.matches("apart", body, mine))

        running = [pool.submit(flood) for _ in range(MATCH_WAITING + 8)]
        try:
            eventually(lambda: replies, server.said)
            assert server.lookup("all", theirs, thing="gift", language="en").status == 200
            keys.revoke("other")
            eventually(lambda: server.lookup("all", theirs, thing="gift", language="en").status == 401, server.said)
            asked = len(replies)
            eventually(lambda: len(replies) > asked + 1, server.said)  # it went on all the while
            assert server.lookup("all", mine, thing="gift", language="en").status == 200
        finally:
            over.set()
        for each in running:
            each.result()
    assert {reply.problem[1] for reply in replies} <= {"too-large", "busy"}
    assert "busy" in {reply.problem[1] for reply in replies}
    (home / "api-keys.json").unlink()
