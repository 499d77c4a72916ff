"""Matching over HTTP, by a real service: every route and option, bad input, and versions that come with their matchers."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import http.client
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from batchinfer.core.open_file import DamagedFile
from batchinfer.match.version import MATCHER
from batchinfer.serve import beside, match
from batchinfer.serve.apikeys import KeyFile
from batchinfer.serve.beside import Beside
from batchinfer.serve.match import MatchRequest
from batchinfer.serve.problems import Problem
from batchinfer.serve.registry import JobRegistry
from batchinfer.serve.served_job import JobState, OpenVersion
from batchinfer.versions.folders import folder_of
from batchinfer.versions.layout import MANIFEST
from tests.damage import Damage, cut, edit_manifest, flipped, next_version, point, without, zeroed
from tests.factories import World
from tests.serving import Server, eventually, job, name_things, names_job, reply_of, say, serving

NAMED = {
    ("Sputnik V", "de"): ["Sputnik-Impfstoff", "Gam-COVID-Vac"],
    ("Sputnik V", "en"): ["Sputnik vaccine", "the jab"],
    ("Comirnaty", "en"): ["Pfizer shot", "the jab"],
    ("Comirnaty", "de-AT"): ["Pfizer-Stich"],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the job `vaccines`, whose terms are matched, `plain`, which has none, and `empty`, without a version."""
    root = tmp_path_factory.mktemp("match") / "home"
    names_job(root, "vaccines", NAMED, serve={"max_age": "5m"})
    say(job(root, "plain", {"id": ["a"]}), "x", id=["a"])
    empty = job(root, "empty", {"id": ["a"]})
    empty.data.bind(empty.job.path)
    return root


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that is asked for much nonsense, and at the end must not have stumbled once."""
    with serving(root, tmp_path_factory.mktemp("server"), "--access-log") as server:
        yield server
        assert "Traceback" not in server.log
        assert "panicked" not in server.log


def spans(matches: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    return [(found["concept"], found["start"], found["end"]) for found in matches]


def test_one_text_by_url(server: Server) -> None:
    """The answer is the contract's object, and may be kept as long as the job's serve section says."""
    reply = server.match("vaccines", "Der Sputnik-Impfstoff, bitte!")
    assert reply.status == 200
    assert reply.json == {
        "matches": [
            {
                "concept": "Sputnik V", "language": "de", "languages": ["de"], "term": "Sputnik-Impfstoff", "start": 4, "end": 21,
                "text": "Sputnik-Impfstoff", "score": None, "source": "import",
            }
        ],
        "version": 1,
    }  # fmt: skip
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "max-age=300"
    assert reply.headers["batchinfer-version"] == "1"


def test_no_match_is_no_error(server: Server) -> None:
    """A text without a term is answered with 200 and an empty list, by URL and in a batch."""
    assert server.match("vaccines", "Guten Tag").json == {"matches": [], "version": 1}
    assert server.matches("vaccines", ["Guten Tag"]).json == {"version": 1, "results": [{"matches": []}]}
    assert server.matches("vaccines", []).json == {"version": 1, "results": []}


def test_many_texts_keep_their_order(server: Server) -> None:
    """Each of 1,000 texts has its matches at its place, and they are those that it has alone."""
    texts = [f"{number} Pfizer shot" if number % 3 else f"nothing {number}" for number in range(1000)]
    reply = server.matches("vaccines", texts)
    assert (reply.status, reply.headers["cache-control"], reply.headers["vary"]) == (200, "no-store", "accept-encoding")
    assert reply.headers["batchinfer-version"] == str(reply.json["version"]) == "1"
    found = [result["matches"] for result in reply.json["results"]]
    assert len(found) == 1000
    for number in (0, 1, 500, 998, 999):
        assert found[number] == server.match("vaccines", texts[number]).json["matches"]
        assert len(found[number]) == (1 if number % 3 else 0)


def test_a_term_of_several_concepts_names_all(server: Server) -> None:
    """Both concepts come with the same span."""
    found = server.match("vaccines", "I had the jab").json["matches"]
    assert sorted(spans(found)) == [("Comirnaty", 6, 13), ("Sputnik V", 6, 13)]


def test_texts_are_found_in_any_spelling(server: Server) -> None:
    """Spans are those of the text as it was sent, in full-width letters and with other dashes too."""
    text = "Ｓputnik\N{NON-BREAKING HYPHEN}IMPFSTOFF ﬁx"
    [found] = server.match("vaccines", text).json["matches"]
    assert (found["start"], found["end"], found["text"]) == (0, 17, text[:17])


def test_matches_can_be_restricted_to_languages(server: Server) -> None:
    """A language stands for its more special ones; several can be named, by URL and in a batch."""
    text = "Pfizer shot, Pfizer-Stich, Gam-COVID-Vac"

    def languages(*wanted: str) -> list[str]:
        by_url = server.match("vaccines", text, language=list(wanted)).json["matches"]
        [in_batch] = server.matches("vaccines", [text], languages=list(wanted)).json["results"]
        assert in_batch["matches"] == by_url
        return [found["language"] for found in by_url]

    assert languages() == ["en", "de-AT", "de"]
    assert languages("de") == ["de-AT", "de"]
    assert languages("de-AT") == ["de-AT"]
    assert languages("en", "de-at") == ["en", "de-AT"]
    assert languages("fr") == []


def test_spans_can_count_utf16_units(server: Server) -> None:
    """A character beyond the first plane is one code point and two UTF-16 units."""
    text = "\N{SYRINGE}\N{SYRINGE} the jab"
    for offsets, expected in ((None, (3, 10)), ("code_points", (3, 10)), ("utf16", (5, 12))):
        more: dict[str, Any] = {} if offsets is None else {"offsets": offsets}
        for reply in (server.match("vaccines", text, **more), server.matches("vaccines", [text], **more)):
            matches = reply.json["matches"] if "matches" in reply.json else reply.json["results"][0]["matches"]
            assert {(found["start"], found["end"]) for found in matches} == {expected}


def test_batches_are_compressed_for_who_takes_it(server: Server) -> None:
    """What is inside is the same, and single answers never are."""
    texts = ["the jab"] * 50
    plain, packed = (server.matches("vaccines", texts, {"accept-encoding": coding}) for coding in ("identity", "gzip"))
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    long = server.match("vaccines", "the jab " * 50, {"accept-encoding": "gzip"})
    assert (len(long.body) > 1024, long.headers.get("content-encoding")) == (True, None)


def test_head_is_get_without_a_body(server: Server) -> None:
    """It has the headers of GET."""
    path = "/v1/jobs/vaccines/match?text=the+jab"
    got, head = server.get(path), server.request("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert got.headers | {"date": ""} == head.headers | {"date": ""}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "text is missing."), ("txt=a", "txt is not a parameter of this URL; it can have text, language, offsets."),
        ("text=a&text=b", "text is given more than once."), ("text=a&x=1", "x is not a parameter of this URL"),
        ("text=%ff", "The URL is not valid UTF-8"), ("text=%ed%a0%80", "The URL is not valid UTF-8"), ("text=%", "The URL has a %"),
        ("text=a&%zz=1", "The URL has a %"), ("text=a&language=", "'' is not a BCP 47 tag, such as de or pt-BR."),
        ("text=a&language=zh_Hans", "'zh_Hans' is not a BCP 47 tag"), ("text=a&language=de,en", "'de,en' is not a BCP 47 tag"),
        ("text=a&offsets=bytes", "offsets is 'bytes'; it can be code_points or utf16."),
        ("text=a&offsets=utf16&offsets=utf16", "offsets is given more than once."),
        ("text=a" + "&language=de" * 201, "A match can be restricted to 200 languages; these are 201."),
    ],
)  # fmt: skip
def test_urls_that_ask_for_nothing(server: Server, query: str, said: str) -> None:
    """What is missing, doubled, unknown or badly escaped is refused with its name."""
    status, kind, sentence = server.get(f"/v1/jobs/vaccines/match?{query}").problem
    assert (status, kind) == (400, "bad-query")
    assert sentence.startswith(said)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "The body is not valid JSON"), (b"\xff", "The body is not valid JSON"), (b"[" * 200_000, "The body is not valid JSON"),
        (b'{"texts": [NaN]}', "The body is not valid JSON"), (b"null", 'The body should be {"texts"'),
        (b'["the jab"]', 'The body should be {"texts"'), (b"{}", 'The body should be {"texts"'),
        (b'{"queries": []}', 'The body should be {"texts"'), (b'{"texts": [], "more": 1}', 'The body should be {"texts"'),
        (b'{"texts": [], "language": "de"}', 'The body should be {"texts"'), (b'{"texts": "the jab"}', "texts should be a list"),
        (b'{"texts": null}', "texts should be a list"), (b'{"texts": {"a": "b"}}', "texts should be a list"),
        (b'{"texts": ["a", null]}', "texts[1] should be a string."), (b'{"texts": [7]}', "texts[0] should be a string."),
        (b'{"texts": [["a"]]}', "texts[0] should be a string."), (b'{"texts": [true]}', "texts[0] should be a string."),
        (b'{"texts": [], "languages": "de"}', "languages should be a list"),
        (b'{"texts": [], "languages": null}', "languages should be a list"), (b'{"texts": [], "languages": [7]}', "7 is not a BCP 47 tag"),
        (b'{"texts": [], "languages": ["\\ud800"]}', "'\\ud800' is not a BCP 47 tag"),
        (b'{"texts": [], "languages": ["de\\n"]}', "'de\\n' is not a BCP 47 tag"), (b'{"texts": [], "languages": ["*"]}', "'*' is not"),
        (b'{"texts": [], "offsets": "bytes"}', "offsets is 'bytes'; it can be"), (b'{"texts": [], "offsets": null}', "offsets is null; it"),
        (b'{"texts": [], "offsets": true}', "offsets is true; it can be"), (b'{"texts": [], "offsets": []}', "offsets is []; it can be"),
    ],
)  # fmt: skip
@pytest.mark.long
def test_bodies_that_ask_for_nothing(server: Server, body: bytes, said: str) -> None:
    """Wrong types, unknown fields and what is no JSON are refused as a whole, with the place."""
    status, kind, sentence = server.matches("vaccines", body).problem
    assert (status, kind) == (400, "bad-body")
    assert sentence.startswith(said)
    assert len(sentence) < 400


def test_too_much_at_a_time(server: Server) -> None:
    """1,001 texts, a body beyond 1 MiB and a URL beyond 8 KiB are refused, each with the status of its kind."""
    refused = server.matches("vaccines", ["x"] * 1001)
    assert refused.problem == (413, "too-large", "A batch may have 1,000 texts; this one has 1,001.")
    assert server.matches("vaccines", ["x" * (1 << 20)]).problem[:2] == (413, "too-large")
    assert server.match("vaccines", "x" * 8192).problem[:2] == (414, "long-url")


@pytest.mark.parametrize(
    "text",
    [
        "", " \n\t\N{ZERO WIDTH SPACE}", "\ud800", "\udfff the jab \ud83d", "the\ud800jab", "\u0378\U000e0fff\ufffe",
        "\N{COMBINING ACUTE ACCENT}" * 50, "\x00", "the jab\N{COMBINING ACUTE ACCENT}", "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}" * 9,
    ],
)  # fmt: skip
def test_odd_texts_are_answered(server: Server, text: str) -> None:
    """Empty, only white space, halves of surrogate pairs, unassigned code points, only combining marks: no error, exact spans."""
    reply = server.matches("vaccines", [text, "the jab", text])
    assert reply.status == 200
    first, between, last = (result["matches"] for result in reply.json["results"])
    assert spans(first) == spans(last) == ([("Comirnaty", 2, 9), ("Sputnik V", 2, 9)] if " the jab " in text else [])
    assert sorted(spans(between)) == [("Comirnaty", 0, 7), ("Sputnik V", 0, 7)]


def test_a_megabyte_of_text(server: Server) -> None:
    """A term at its end is found where it is."""
    text = "lorem ipsum " * 83_000 + "Pfizer shot"
    assert len(text) > 990_000
    [result] = server.matches("vaccines", [text]).json["results"]
    assert spans(result["matches"]) == [("Comirnaty", len(text) - 11, len(text))]


@pytest.mark.long
def test_a_text_full_of_terms(server: Server) -> None:
    """Very many matches take no longer each than few, also where spans are counted in UTF-16 units."""
    many = 50_000
    [result] = server.matches("vaccines", ["\N{SYRINGE} " + "the jab " * many], offsets="utf16").json["results"]
    assert len(result["matches"]) == 2 * many
    assert spans(result["matches"])[-1][1:] == (8 * many - 5, 8 * many + 2)


def test_a_reply_is_bounded(server: Server) -> None:
    """More matches than a reply has room for are refused with a sentence; the service goes on."""
    refused = server.matches("vaccines", ["the jab " * 100] * 1000)
    assert refused.problem[:2] == (413, "too-large")
    assert "fewer or shorter texts" in refused.problem[2]
    refused = server.matches("vaccines", ["the jab " * 125_000])
    assert refused.problem[:2] == (413, "too-large")
    assert server.match("vaccines", "Pfizer shot").status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v1/jobs/plain/match?text=a", 404, "no-match-section"), ("GET", "/v1/jobs/nosuch/match?text=a", 404, "unknown-job"),
        ("GET", "/v1/jobs/empty/match?text=a", 503, "not-published"), ("PUT", "/v1/jobs/vaccines/match", 405, "method-not-allowed"),
        ("GET", "/v1/jobs/vaccines/match/", 404, "not-found"), ("POST", "/v1/jobs/vaccines/match?text=a", 400, "bad-body"),
    ],
)  # fmt: skip
@pytest.mark.long
def test_each_refusal_is_a_problem(server: Server, method: str, path: str, status: int, kind: str) -> None:
    """A job that matches nothing, one that there is not, and one without a version are told apart."""
    reply = server.request(method, path)
    assert reply.problem[:2] == (status, kind)
    assert reply.headers["cache-control"] == "no-store"


def test_a_job_without_a_match_section_says_so(server: Server) -> None:
    """In a batch too, and its look-ups are as ever."""
    status, kind, sentence = server.matches("plain", ["a"]).problem
    assert (status, kind) == (404, "no-match-section")
    assert sentence.startswith("The job plain has no match section")
    assert server.lookup("plain", id="a").status == 200
    assert not server.get("/v1/jobs/plain").json["degraded"]


def test_matches_are_counted_and_texts_are_not_logged(server: Server) -> None:
    """The metrics have texts, matches and requests of the route; the access log has the path alone."""
    names = ("texts", "matches")
    before = {name: server.metric(f"batchinfer_{name}_total", job="vaccines") for name in names}
    asked = server.metric("batchinfer_requests_total", job="vaccines", route="match", status="200")
    server.match("vaccines", "the jab")
    server.matches("vaccines", ["Pfizer shot", "nothing", "secret words"])
    after = {name: server.metric(f"batchinfer_{name}_total", job="vaccines") for name in names}
    assert {name: after[name] - before[name] for name in names} == {"texts": 4, "matches": 3}
    assert server.metric("batchinfer_requests_total", job="vaccines", route="match", status="200") == asked + 2
    assert '"path": "/v1/jobs/vaccines/match"' in server.out
    assert "jab" not in server.out
    assert "secret" not in server.out + server.log


@pytest.mark.long
def test_keys_guard_matching(root: Path, tmp_path: Path) -> None:
    """Without a key, and with that of another job, nothing is matched, by URL or in a batch."""
    shutil.copytree(root, tmp_path / "home", ignore=shutil.ignore_patterns("misses"))
    keys = KeyFile(tmp_path / "home")
    good, other = keys.add("good", ["vaccines"]).key, keys.add("other", ["plain"]).key
    with serving(tmp_path / "home", tmp_path / "server") as server:
        for ask, what in ((server.match, "the jab"), (server.matches, ["the jab"])):
            asking = cast("Any", ask)
            assert asking("vaccines", what).problem[:2] == (401, "no-key")
            assert asking("vaccines", what, {"authorization": f"Bearer {other}"}).problem[:2] == (403, "forbidden")
            assert asking("vaccines", what, {"authorization": f"Bearer {good}"}).status == 200


def test_long_texts_are_matched_beside_the_event_loop() -> None:
    """While a long text is matched, other requests are answered; a short one is not worth a thread."""
    released = threading.Event()
    threads = []

    def find_json(text: str, **_: Any) -> bytes:
        threads.append(threading.current_thread())
        assert len(text) < match.THREAD_FROM or released.wait(20)
        return b"[]"

    opened = cast(
        "OpenVersion",
        SimpleNamespace(version=1, snapshot=SimpleNamespace(matcher=SimpleNamespace(find_json=find_json))),
    )

    async def ask() -> None:
        long = asyncio.create_task(
            match.match_texts(
                opened, MatchRequest(["x" * (match.THREAD_FROM + 1)], (), utf16=False, is_batch=True), Beside()
            )
        )
        while not threads:  # noqa: ASYNC110 - a thread fills it
            await asyncio.sleep(0.01)
        body, _ = await match.match_texts(opened, MatchRequest(["x"], (), utf16=False, is_batch=False), Beside())
        assert json.loads(body) == {"matches": [], "version": 1}
        assert not long.done()
        released.set()
        assert json.loads((await long)[0]) == {"version": 1, "results": [{"matches": []}]}

    asyncio.run(ask())
    assert threads[0] is not threading.main_thread()
    assert threads[1] is threading.main_thread()


def test_without_the_extra_look_ups_go_on(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A service that lacks the matching library serves the version anyway, warns, and says so to clients that want matches."""
    monkeypatch.setitem(sys.modules, "daachorse", None)
    registry = JobRegistry(root, lambda _: None, records_misses=False)
    registry.refresh()
    opened = registry.jobs["vaccines"].open_version()
    assert opened.snapshot.get({"thing": "Sputnik V", "language": "de"}) is not None
    assert registry.jobs["vaccines"].situation.state is JobState.SERVING
    assert "vaccines: texts cannot be matched." in caplog.text
    assert "plain: texts cannot be matched." not in caplog.text
    with pytest.raises(Problem, match=r"is not installed: pip install") as refusal:
        asyncio.run(match.match_texts(opened, MatchRequest(["the jab"], (), utf16=False, is_batch=False), Beside()))
    assert (refusal.value.status, refusal.value.slug) == (501, "not-installed")


# Versions.


@pytest.fixture
def world(tmp_path: Path) -> World:
    return names_job(tmp_path / "home", "vaccines", of_version(1))


def of_version(version: int) -> dict[tuple[str, str], list[str]]:
    """What a version names: a text of all words then tells which one matched it."""
    return {("same", "en"): ["word zero"], ("changing", "en"): [f"word number {version}"]}


TEXT = "word zero " + " ".join(f"word number {version}." for version in range(1, 30))


@pytest.mark.long
def test_a_swap_under_load_takes_the_new_matcher(world: World, tmp_path: Path) -> None:
    """While versions are published, each reply is whole and has the matches of the version that it names, and no other."""
    wrong: list[str] = []
    seen: set[int] = set()
    over = threading.Event()

    def ask(server: Server, batches: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        path = "/v1/jobs/vaccines/match"
        try:
            while not over.is_set() and not wrong:
                if batches:
                    connection.request("POST", path, json.dumps({"texts": [TEXT] * 20}))
                else:
                    connection.request("GET", f"{path}?text={TEXT.replace(' ', '+')}")
                reply = reply_of(connection.getresponse())
                version = reply.json["version"]
                results = reply.json["results"] if batches else [reply.json]
                for result in results:
                    terms = [found["term"] for found in result["matches"]]
                    assert terms == ["word zero", f"word number {version}"], (version, terms)
                assert reply.headers["batchinfer-version"] == str(version)
                seen.add(version)
        except Exception as exc:  # noqa: BLE001 - a thread's failure must fail the test
            wrong.append(repr(exc))
        finally:
            connection.close()

    with serving(world.data.root, tmp_path / "server", workers=2) as server:
        threads = [threading.Thread(target=ask, args=[server, batches]) for batches in (False, True)]
        for thread in threads:
            thread.start()
        for version in range(1, 6):
            if version > 1:
                name_things(world, of_version(version))
            server.settled("vaccines", version)
            eventually(lambda version=version: version in seen or wrong, server.said)  # type: ignore[misc]
        over.set()
        for thread in threads:
            thread.join()
        assert not wrong
        assert seen == {1, 2, 3, 4, 5}
    assert "Traceback" not in server.log


@pytest.mark.long
def test_another_unicode_is_warned_of(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A version with a matcher that was made with another Unicode than this Python's is served, and the log warns."""
    next_version(world.data, like=1, number=2, damage=lambda folder: edit_manifest(folder, unicode="1.1"))
    point(world.data, 2)
    registry = JobRegistry(world.data.root, lambda _: None, records_misses=False)
    registry.refresh()
    assert registry.jobs["vaccines"].open_version().version == 2
    assert "vaccines: version 2 normalizes by Unicode 1.1" in caplog.text


def other_content(folder: Path) -> None:
    """The matcher holds something else, and all checksums are right."""
    path = folder / MATCHER
    path.write_bytes(b"no matcher" * 100)
    content = json.loads((folder / MANIFEST).read_bytes())
    facts = {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    edit_manifest(folder, files=content["files"] | {MATCHER: facts})


DAMAGED = pytest.mark.parametrize(
    "damage", [without(MATCHER), cut(MATCHER), flipped(MATCHER), zeroed(MATCHER), other_content],
    ids=["missing", "cut", "flipped", "zeroed", "something else"],
)  # fmt: skip


@DAMAGED
def test_a_damaged_matcher_without_another_version(
    world: World, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes only matching away: look-ups go on, a match is refused with a reason, and the job is reported as degraded."""
    damage(folder_of(world.data, 1))
    point(world.data, 1)
    registry = JobRegistry(world.data.root, lambda _: None, records_misses=False)
    registry.refresh()
    served = registry.jobs["vaccines"]
    assert (served.open_version().version, served.situation.state) == (1, JobState.DEGRADED)
    assert (registry.ready, registry.degraded) == (True, 1)
    assert MATCHER in (served.situation.problem or "")
    assert served.open_version().snapshot.entries.first() is not None
    asked = MatchRequest([TEXT], (), utf16=False, is_batch=False)
    with pytest.raises(DamagedFile, match=MATCHER):
        asyncio.run(match.match_texts(served.open_version(), asked, Beside()))
    assert "What is whole of version 1 is served" in caplog.text
    assert "texts cannot be matched" in caplog.text


@DAMAGED
@pytest.mark.long
def test_a_damaged_matcher_leaves_the_old_version(world: World, damage: Damage) -> None:
    """The old version goes on being looked up and matched, and what is wrong is reported; the next good one is picked up."""
    registry = JobRegistry(world.data.root, lambda _: None, records_misses=False)
    registry.refresh()
    next_version(world.data, like=1, number=2, damage=damage)
    point(world.data, 2)
    registry.refresh()
    served = registry.jobs["vaccines"]
    assert served.open_version().version == 1
    assert served.failed_loads == 1
    assert served.situation.problem is not None
    assert MATCHER in served.situation.problem
    asked = MatchRequest([TEXT], (), utf16=False, is_batch=False)
    body, count = asyncio.run(match.match_texts(served.open_version(), asked, Beside()))
    assert (json.loads(body)["version"], count) == (1, 2)
    again = JobRegistry(world.data.root, lambda _: None, records_misses=False)
    again.refresh()
    assert again.jobs["vaccines"].open_version().version == 1  # a worker that starts now falls back to it, too
    shutil.rmtree(folder_of(world.data, 2))
    next_version(world.data, like=1, number=3)
    registry.refresh()
    assert served.open_version().version == 3
    assert served.situation.state is JobState.SERVING


def test_long_matching_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every few milliseconds of work, and not between two texts that took less."""
    now, rests = [0.0], list[float]()
    monkeypatch.setattr("batchinfer.serve.beside.time.monotonic", lambda: now[0])
    monkeypatch.setattr("batchinfer.serve.beside.time.sleep", rests.append)
    rest = beside.Rests()
    for seconds in (0.001, 0.001, 0.003, 0.001, 0.005):
        now[0] += seconds
        rest()
    assert rests == [beside.REST_SECONDS] * 2
