"""A miss that a version's student answers: over HTTP, in batches, by every Lookup, and on the command line."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import jsonschema
import numpy as np
import pytest

from batchinfer import AsyncLookup, Lookup
from batchinfer.client.types import LookupOutcome
from batchinfer.core.home import CALIBRATION
from batchinfer.serve import batch, openapi
from batchinfer.serve.problems import Problem
from batchinfer.serve.served_job import OpenVersion, ServedJob
from batchinfer.student.file import read_student
from batchinfer.student.linear import LinearStudent
from batchinfer.student.student import Student
from batchinfer.versions import folders, pointers
from batchinfer.versions import student as students
from batchinfer.versions.follow import Follower
from batchinfer.versions.layout import MANIFEST, STUDENT
from batchinfer.versions.student import MissAnswers
from tests.damage import Damage, cut, edit_manifest, flipped, made_to_fit, next_version, point, without
from tests.embedded import embeddings_in
from tests.factories import Templates, World
from tests.misses.counts import found
from tests.pupils import CHOICES, four_words, published, student_job
from tests.serving import Server, eventually, serving
from tests.tiny import ROOT, Cli

SURE, UNSURE = "plum plum fig pear apple peach", "saw plum drill fig"
LISTED = four_words(1)[0]


def made(folder: Path) -> World:
    """A published job of which misses are asked of the student."""
    return published(folder, serve={"on_miss": "student"})


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return Templates(tmp_path_factory.mktemp("made"))


@pytest.fixture
def world(templates: Templates, tmp_path: Path) -> World:
    """One that a test may change."""
    return templates.world(made, tmp_path)


@pytest.fixture(scope="module")
def shop(templates: Templates, tmp_path_factory: pytest.TempPathFactory) -> World:
    """One that no test changes."""
    return templates.world(made, tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def server(shop: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(shop.data.root, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(params=["http", "folder"])
def source(request: pytest.FixtureRequest, shop: World) -> str | Path:
    return request.getfixturevalue("server").url if request.param == "http" else shop.data.root


def student_of(world: World) -> Student:
    return read_student((folders.folder_of(world.data, 1) / STUDENT).read_bytes())


def conforms(schema: str, content: Any) -> None:
    """To a schema of the service's document."""
    document = openapi.document()
    jsonschema.validate(content, {"$ref": f"#/components/schemas/{schema}", "components": document["components"]})


def test_an_answer_is_like_a_hit(server: Server, shop: World) -> None:
    """Its fields, and those that say who answered; it can be kept, and asked for again."""
    reply, said = server.lookup("shop", text=SURE), student_of(shop)(SURE)
    assert reply.status == 200
    content = reply.json
    hit = server.lookup("shop", text=LISTED)
    assert list(content) == [*hit.json, "abstained", "version"]
    assert (content["job"], content["query"], content["prediction"]) == ("shop", {"text": SURE}, "fruit")
    assert content["scores"] == pytest.approx(dict(zip(CHOICES, said.scores, strict=True)))
    assert content["score"] == content["scores"]["fruit"]
    assert (content["source"], content["abstained"], content["version"]) == ("student", False, 1)
    assert reply.headers["cache-control"] == hit.headers["cache-control"]
    again = server.lookup("shop", {"if-none-match": reply.headers["etag"]}, text=SURE)
    assert (again.status, again.body) == (304, b"")
    conforms("Hit", content)


def test_a_text_of_which_it_is_not_sure(server: Server) -> None:
    """The 404 of a miss, whose problem says so."""
    for text in (UNSURE, " "):
        reply = server.lookup("shop", text=text)
        assert reply.status == 404
        assert reply.json == {
            "type": "urn:batchinfer:miss", "title": "No prediction", "status": 404, "abstained": True,
            "detail": "shop has no prediction for this query, and its student abstains.",
        }  # fmt: skip
        assert reply.headers["cache-control"] == "no-cache"
        conforms("Problem", reply.json)


def test_a_batch(server: Server) -> None:
    """Each of them as alone, in order; what does not fit the key is refused as ever."""
    content = server.batch("shop", [{"text": SURE}, {"text": UNSURE}, {"text": LISTED}, {"id": "a"}]).json
    answered, left, hit, refused = content["results"]
    assert answered == {"found": True} | server.lookup("shop", text=SURE).json
    assert left == {"found": False, "query": {"text": UNSURE}, "abstained": True}
    assert (hit["source"], refused["found"]) == ("model", False)
    conforms("Results", content)


def test_a_batch_ends_where_its_reply_is_full(shop: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are counted as they are made: many choices with long names would take a worker's memory before anybody looked."""
    monkeypatch.setattr(batch, "MAX_REPLY", 1000)
    asked = list[str]()
    with pointers.open_served(shop.data) as snapshot:
        opened = OpenVersion.of(snapshot, 1, None)
        student = opened.student
        assert student is not None

        def counted(text: str) -> bytes | None:
            asked.append(text)
            return student(text)

        opened = dataclasses.replace(opened, student=cast("MissAnswers", counted))
        with pytest.raises(Problem, match="send fewer queries at a time"):
            batch.look_up_all(opened, [{"text": SURE}] * 100)
    assert 1 < len(asked) < 10


def test_every_lookup(source: str | Path, server: Server) -> None:
    """From the folder as over HTTP, one and many, blocking or not."""
    expected = server.lookup("shop", text=SURE).json
    with Lookup(source, "shop") as lookup:
        assert lookup.get(text=SURE) == expected
        assert lookup.get(text=UNSURE) is None
        many = lookup.get_many([{"text": SURE}, {"text": UNSURE}, {"text": LISTED}, {"id": "a"}])
        assert [many[0], many[1], many[2] == lookup.get(text=LISTED)] == [expected, None, True]
        assert asyncio.run(in_a_loop(source)) == [expected, None]


async def in_a_loop(source: str | Path) -> list[LookupOutcome]:
    async with AsyncLookup(source, "shop") as lookup:
        [first] = await lookup.get_many([{"text": SURE}])
        return [first, await lookup.get(text=UNSURE)]


def test_what_is_counted(server: Server, world: World) -> None:
    """Every miss is recorded, answered or not, and counted as what it was."""

    def counts() -> list[float]:
        names = ("hits", "misses", "student_answers", "student_abstentions")
        return [server.metric(f"batchinfer_{name}_total", job="shop") for name in names]

    before = counts()
    for text in (SURE, SURE, UNSURE, LISTED):
        server.lookup("shop", text=text)
    server.batch("shop", [{"text": SURE}, {"text": UNSURE}, {"text": LISTED}])
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [2, 5, 3, 2]
    status = server.get("/v1/jobs/shop").json
    assert status["student"]["threshold"] == pytest.approx(student_of(world).threshold)
    conforms("Job", status)


@pytest.mark.long
def test_answered_misses_are_recorded(world: World, tmp_path: Path) -> None:
    """The model is to see all that clients ask, not the hard ones alone."""
    with serving(world.data.root, tmp_path / "server") as server:
        assert [server.lookup("shop", text=text).status for text in (SURE, UNSURE)] == [200, 404]
        expected = {f'{{"text":"{SURE}"}}': 1, f'{{"text":"{UNSURE}"}}': 1}
        eventually(lambda: found(world.data) == expected, server.said)


@pytest.mark.long
def test_how_the_one_before_turned_out_is_a_metric(world: World, tmp_path: Path) -> None:
    """Of its answers to live queries those that the model has answered since, and those of them that the model gave, too."""
    folder = folders.folder_of(world.data, 1)
    said = json.loads((folder / MANIFEST).read_bytes())["student"]
    edit_manifest(folder, student=said | {"before": {"answered": 40, "right": 37}})
    point(world.data, 1)
    with serving(world.data.root, tmp_path / "server") as server:
        found = [server.metric(f"batchinfer_student_{name}", job="shop") for name in ("checked", "right")]
    assert found == [40, 37]


def test_the_command(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Lookup gives its answer, and says if it abstains."""
    batchinfer = Cli(monkeypatch, capsys, world.data.root)
    assert batchinfer("lookup", "shop", f"text={SURE}", "--json").json["source"] == "student"
    missed = batchinfer("lookup", "shop", f"text={UNSURE}")
    assert (missed.code, "and its student abstains" in missed.sentence) == (6, True)


@pytest.mark.long
def test_off_unless_the_job_asks_for_it(world: World) -> None:
    """A version has a student, and nobody asks it, nor loads numpy."""
    world.changed(serve=None).publish()
    assert (folders.folder_of(world.data, 2) / STUDENT).exists()
    code = (
        "import sys; from batchinfer import Lookup\n"
        f"assert Lookup({str(world.data.root)!r}, 'shop').get(text={SURE!r}) is None\n"
        "assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("damaged", ["a checksum", "what it holds"])
def test_a_damaged_student_is_a_damaged_version(world: World, damaged: str) -> None:
    """The one before goes on, and the problem names the file."""
    follower = Follower(world.data)
    follower.refresh()
    if damaged == "a checksum":
        next_version(world.data, 1, 2, flipped(STUDENT))
    else:
        next_version(world.data, 1, 2)
        (folders.folder_of(world.data, 2) / STUDENT).write_bytes(b"PK no zip")
        made_to_fit(folders.folder_of(world.data, 2))
        point(world.data, 2)
    follower.refresh()
    assert follower.followed.pointer is not None
    assert follower.followed.pointer.version == 1
    assert "student.npz is" in (follower.followed.problem or "")


def no_zip(folder: Path) -> None:
    """A file that was published so, and holds no student."""
    (folder / STUDENT).write_bytes(b"PK no zip")
    made_to_fit(folder)


@pytest.mark.parametrize("damage", [cut(STUDENT), without(STUDENT), no_zip], ids=["cut", "gone", "no zip"])
def test_a_damaged_student_without_another_version(
    world: World,
    damage: Damage,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It takes only itself away: look-ups go on, misses are misses, and the job is reported as degraded."""
    damage(folders.folder_of(world.data, 1))
    point(world.data, 1)
    served = ServedJob(world.data, records_misses=False)
    with caplog.at_level(logging.WARNING, "batchinfer.serve"):
        served.refresh()
    assert (served.status().version, served.status().degraded) == (1, True)
    assert "student.npz is" in (served.status().problem or "")
    assert "What is whole of version 1 is served" in caplog.text
    assert "the student of version 1 is not asked" in caplog.text
    assert served.open_version().student is None
    assert b"abstain" not in served.open_version().miss_reply[2]
    with Lookup(world.data.root, "shop") as lookup:
        assert [hit is None for hit in (lookup.get(text=LISTED), lookup.get(text=SURE))] == [False, True]
    batchinfer = Cli(monkeypatch, capsys, world.data.root)
    assert batchinfer("lookup", "shop", f"text={LISTED}", "--json").json["source"] == "model"
    missed = batchinfer("lookup", "shop", f"text={SURE}")
    assert (missed.code, "its student cannot be asked" in missed.sentence) == (6, True)


@pytest.mark.long
def test_a_service_that_starts_on_a_damaged_student(world: World, tmp_path: Path) -> None:
    """It is ready, answers look-ups, and says in three places that the job is degraded."""
    cut(STUDENT)(folders.folder_of(world.data, 1))
    with serving(world.data.root, tmp_path / "server") as server:
        assert [server.lookup("shop", text=text).status for text in (LISTED, SURE)] == [200, 404]
        assert server.get("/readyz").json["degraded_jobs"] == 1
        assert server.metric("batchinfer_degraded", job="shop") == 1
        assert "student.npz is damaged" in server.get("/v1/jobs/shop").json["problem"]
        assert "student.npz is damaged" in server.said()


def newer(folder: Path) -> None:
    """A student that a program to come made."""
    with np.load(io.BytesIO((folder / STUDENT).read_bytes())) as file:
        content = dict(file)
    said = json.loads(content["facts"].tobytes()) | {"format": 9}
    content["facts"] = np.frombuffer(json.dumps(said).encode(), np.uint8)
    np.savez_compressed(folder / STUDENT, **content)
    made_to_fit(folder)


@pytest.mark.parametrize("why", ["newer", "no numpy"])
def test_a_student_that_cannot_be_asked(
    world: World, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The version is served without, as if there were none, and the log says so."""
    if why == "newer":
        newer(folders.folder_of(world.data, 1))
        point(world.data, 1)
    else:
        monkeypatch.setitem(sys.modules, "batchinfer.student.linear", None)
    served = ServedJob(world.data, records_misses=False)
    with caplog.at_level(logging.WARNING, "batchinfer.serve"):
        served.refresh()
    opened = served.open_version()
    assert opened.student is None
    assert b"abstain" not in opened.miss_reply[2]
    expected = "made by a newer batchinfer" if why == "newer" else r"batchinfer-cache[student]"
    assert "the student of version 1 is not asked" in caplog.text
    assert expected in caplog.text
    with Lookup(world.data.root, "shop") as lookup:
        assert lookup.get(text=SURE) is None


def test_a_manifest_that_asks_for_a_student_of_another_key(world: World) -> None:
    """A student reads one text: of a version with two columns, or a number, none is asked."""
    edit_manifest(folders.folder_of(world.data, 1), key=[{"name": "text", "kind": "integer"}])
    point(world.data, 1)
    follower = Follower(world.data)
    follower.refresh()
    assert follower.followed.snapshot is not None
    assert follower.followed.snapshot.on_miss is None


def test_a_student_of_embeddings_answers_words_that_the_list_has_not(
    templates: Templates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The version has all that it needs, but for the library; without that, the version is served without a student."""
    world = templates.world(student_job, tmp_path)
    folder = embeddings_in(world.job.folder / "embeddings")
    student = {"text": "text", "kind": "model2vec", "embeddings": "embeddings"}
    world = world.changed(student=student, serve={"on_miss": "student"})
    world.publish()
    shutil.rmtree(folder)
    with Lookup(world.data.root, "shop") as lookup:
        found = lookup.get(text="quince cherry")
        assert found is not None
        assert (found["prediction"], found["source"]) == ("fruit", "student")
        assert lookup.get(text="zzz") is None
    monkeypatch.setitem(sys.modules, "batchinfer.student.tokens", None)
    with Lookup(world.data.root, "shop") as lookup, caplog.at_level(logging.WARNING):
        assert lookup.get(text="quince cherry") is None
        assert lookup.get(text=LISTED) is not None


def test_choices_with_any_characters() -> None:
    """They are in the body as they are."""
    choices = ('50% "sure"', "\N{SNOWMAN}\n", "%r")
    weights = np.zeros((3, 16))
    student = LinearStudent(choices, 0.0, weights, np.array([2.0, 1.0, 0.0]))
    body = MissAnswers('a"b', "te%rxt", 7, student)('say "%s" \N{SNOWMAN}')
    content = json.loads(body or b"")
    assert content["query"] == {"te%rxt": 'say "%s" \N{SNOWMAN}'}
    assert (content["prediction"], list(content["scores"])) == (choices[0], list(choices))
    assert sum(content["scores"].values()) == pytest.approx(1)


def test_answers_that_are_kept_are_few_and_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of abstaining, too, of what is asked a second time; a long text is not kept."""
    monkeypatch.setattr(students, "ROOM", 70_000)
    monkeypatch.setattr(students, "ONCE", 400)
    asked = list[str]()

    class Noting(LinearStudent):
        def __call__(self, text: str) -> Any:
            asked.append(text)
            return super().__call__(text)

    weights = np.random.default_rng(0).normal(size=(1, 1 << 10))
    answers = MissAnswers("job", "text", 1, Noting(("yes", "no"), 0.7, weights, np.zeros(1)))
    texts = [f"plum {number}" for number in range(300)]
    said = [answers(text) for text in texts]
    assert None in said
    assert len(set(said)) > 100
    assert not answers._kept
    assert [answers(text) for text in texts] == said
    assert len(asked) == 600
    assert 5 < len(answers._kept) < 250
    assert [answers(text) for text in texts[-5:]] == said[-5:]
    assert len(asked) == 600
    for number in range(2_000):
        answers(f"another {number}")
    assert len(answers._once) <= 400
    del asked[:]
    long = "plum " * 1_000
    assert answers(long) == answers(long) == answers(long)
    assert asked == [long] * 3


def test_its_score_is_no_chance_of_being_right() -> None:
    """Where a version's scores are calibrated they are that, so its own, how like the model it is, is not told as one."""
    student = LinearStudent(("yes", "no"), 0.0, np.zeros((1, 16)), np.array([2.0]))
    plain, calibrated = (
        json.loads(MissAnswers("a", "text", 1, student, calibrated=said)("word") or b"") for said in (False, True)
    )
    assert plain["score"] == plain["scores"]["yes"]
    assert calibrated == plain | {"score": None}


def test_a_version_with_calibrated_scores_is_known_by_its_file(world: World) -> None:
    """As its manifest has it."""
    place = folders.folder_of(world.data, 1)
    (place / CALIBRATION).write_bytes(b"{}")
    made_to_fit(place)
    point(world.data, 1)
    with world.served() as version:
        assert json.loads(version.answer({"text": SURE}) or b"")["score"] is None
