"""A version's student: learned of its own entries, gated, erased and compared with it."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchinfer.core.clock import now
from batchinfer.errors import GateFailed, StoreError
from batchinfer.maintenance import erase
from batchinfer.pipeline.publish import publish, publish_candidate
from batchinfer.planning.prepare import Options
from batchinfer.publish.student_rows import HELD
from batchinfer.student.file import read_student
from batchinfer.student.student import Student
from batchinfer.student.threshold import ENOUGH, least_rows
from batchinfer.training.distill import distill
from batchinfer.versions import folders, pointers, replication
from batchinfer.versions.layout import STUDENT
from batchinfer.versions.manifest import Manifest
from tests.factories import Quiet, Templates, World, write
from tests.misses.counts import asked
from tests.pupils import CHOICES, ROWS, by_chance, by_words, four_words, published, student_job
from tests.tiny import RecordingConsole


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return Templates(tmp_path_factory.mktemp("made"))


@pytest.fixture
def world(made: Templates, tmp_path: Path) -> World:
    """A published job with a student."""
    return made.world(published, tmp_path)


def folder_of(world: World, number: int = 1) -> Path:
    return folders.folder_of(world.data, number)


def student_of(world: World, number: int = 1) -> Student:
    return read_student((folder_of(world, number) / STUDENT).read_bytes())


def further(count: int) -> list[str]:
    """Texts that the list does not have."""
    listed = set(four_words(ROWS))
    return [text for text in four_words(ROWS + 3 * count, seed=1) if text not in listed][:count]


@pytest.mark.long
def test_the_file_of_a_version(world: World, made: Templates, tmp_path: Path) -> None:
    """It answers further texts, as its manifest says; the same list makes the same bytes, and distill the same report."""
    student, manifest = student_of(world), Manifest.read(folder_of(world))
    assert list(student.choices) == CHOICES
    assert [student(text).best for text in ("plum plum fig pear apple", "saw saw file")] == [0, 1]
    said = manifest.document["student"]
    assert (said["served"], said["rows"], said["threshold"]) == (True, ROWS, student.threshold)
    assert manifest.student is not None
    assert (manifest.student.problem, manifest.student.threshold) == (None, student.threshold)
    report = distill(world.job, world.data, Options()).to_json()
    assert {name: value for name, value in said.items() if name != "before"} == json.loads(json.dumps(report))
    other = made.world(student_job, tmp_path / "other")
    other.publish()
    assert (folder_of(other) / STUDENT).read_bytes() == (folder_of(world) / STUDENT).read_bytes()


def test_a_run_says_what_came_of_it(made: Templates, tmp_path: Path) -> None:
    """In its report and in a sentence; and nothing is published again while nothing changes."""
    world = made.world(student_job, tmp_path)
    console = RecordingConsole()
    report = publish(world.job, world.data, Options(), console)
    assert report.to_json()["student"]["served"] is True
    assert any(said.startswith("Its student answers ") for said in console.said)
    assert world.publish().unchanged


def test_a_student_that_breaks_its_promise_is_left_out(made: Templates, tmp_path: Path) -> None:
    """The version is published without it, and says so; nothing is published again for that."""
    world = made.world(published, tmp_path, ROWS, by_chance)
    manifest = Manifest.read(folder_of(world))
    assert STUDENT not in manifest.files
    assert manifest.student is not None
    assert "from no score on it can be shown" in (manifest.student.problem or "")
    assert world.publish().unchanged


@pytest.mark.parametrize(("rows", "why"), [(40, "too few for a student"), (300, "are all alike")])
def test_where_nothing_can_be_learned(tmp_path: Path, rows: int, why: str) -> None:
    """The version has no student and says why, as a sentence."""
    world = published(tmp_path, rows, (lambda _: [-0.1, -3.0]) if rows > 100 else by_words)
    said = Manifest.read(folder_of(world)).document["student"]
    assert said["served"] is False
    assert why in said["problem"]
    assert not said["problem"].endswith(".")


@pytest.mark.long
def test_a_changed_section_is_published(world: World) -> None:
    """Also where no answer changed, and where a job has a student for the first time, or none any more."""
    before = student_of(world).threshold
    world = world.changed(student={"text": "text", "agree": 0.8})
    assert world.publish().version == 2
    assert student_of(world, 2).threshold <= before
    world = world.changed(student=None)
    assert world.publish().version == 3
    assert not (folder_of(world, 3) / STUDENT).exists()
    assert world.changed(student={"text": "text"}).publish().version == 4


def test_a_manifest_without_newer_fields_is_served_alike(world: World) -> None:
    """An older program wrote it: nothing is published for want of a field."""
    path = folder_of(world) / "manifest.json"
    content = json.loads(path.read_bytes())
    del content["spec"]["serve"]["on_miss"], content["spec"]["student"]["score"]
    del content["spec"]["student"]["embeddings"]
    path.write_text(json.dumps(content), encoding="utf-8")
    pointers.make_current(world.data, 1)
    assert world.publish().unchanged
    assert world.changed(serve={"on_miss": "student"}).publish().version == 2


@pytest.mark.long
def test_a_refused_candidate_keeps_its_student(made: Templates, tmp_path: Path) -> None:
    """It is published late as exactly these bytes, and refused if they are others by then."""
    world = made.world(student_job, tmp_path).changed(gate={"rows": 10_000})
    with pytest.raises(GateFailed):
        world.publish()
    place = world.data.rejected / "r1"
    content = (place / STUDENT).read_bytes()
    report = publish_candidate(world.job, world.data, Options(), Quiet(), "r1", "it is wanted")
    assert report.version == 1
    assert (folder_of(world) / STUDENT).read_bytes() == content
    assert world.served().student is not None
    with pytest.raises(GateFailed):
        world.changed(gate={"rows": 10_000}, student={"text": "text", "agree": 0.8}).publish()
    (world.data.rejected / "r1-2" / STUDENT).write_bytes(content)
    with pytest.raises(StoreError, match=r"student\.npz of the candidate r1-2 is damaged"):
        publish_candidate(world.job, world.data, Options(), Quiet(), "r1-2", "it is wanted")


def test_a_copy_has_it(world: World, tmp_path: Path) -> None:
    """Copied like every file of a version, and rolled back with it."""
    replication.replicate(world.data, tmp_path / "replica", lambda _: None)
    there = tmp_path / "replica" / world.data.name / "versions" / "000001" / STUDENT
    assert there.read_bytes() == (folder_of(world) / STUDENT).read_bytes()


@pytest.mark.long
def test_an_erased_text_leaves_no_student_behind(world: World) -> None:
    """Every version that had the text loses its student, which may have learned from it; the next publish makes another."""
    world = world.changed(student={"text": "text", "agree": 0.8})
    world.publish()
    text = four_words(ROWS)[0]
    report = erase.erase_entry(world.job, world.data, {"text": text})
    assert sorted(report.versions.untaught, key=str) == [1, 3]
    assert "Without a student now, since it may have learned from the entry: 3, 1." in " ".join(report.remarks)
    for number in folders.numbers(world.data):
        manifest = Manifest.read(folder_of(world, number))
        assert STUDENT not in manifest.files
        assert not (folder_of(world, number) / STUDENT).exists()
        assert manifest.student is None
    world.rows({"text": four_words(ROWS)[1:]})
    assert world.publish().version == 4
    assert Manifest.read(folder_of(world, 4)).document["student"]["rows"] == ROWS - 1


@pytest.mark.long
def test_a_text_that_a_version_does_not_have_leaves_its_student(world: World) -> None:
    """It cannot have learned from it."""
    text = four_words(ROWS)[0]
    world.rows({"text": four_words(ROWS)[1:]})
    world.publish()
    erase.erase_entry(world.job, world.data, {"text": text})
    assert (folder_of(world, 2) / STUDENT).exists()
    assert not (folder_of(world, 1) / STUDENT).exists()


@pytest.mark.long
def test_people_are_asked_beside_the_model(made: Templates, tmp_path: Path) -> None:
    """Golden rows that were held out, and what reviewers corrected or rejected: on those the model was wrong."""
    world = made.world(student_job, tmp_path)
    texts = four_words(ROWS)
    golden = {"text": texts[:200], "answer": [said(text) for text in texts[:200]]}
    write(world.job.folder / "golden.parquet", golden)
    world = world.changed(gate={"golden": {"path": "golden.parquet", "accuracy": 0.0}, "coverage": 0, "changed": 1})
    world.take_in({"text": texts[300:310], "prediction": [other(said(text)) for text in texts[300:310]]})
    report = distill(world.job, world.data, Options())
    assert report.people is not None
    assert 200 / HELD / 2 < report.people.rows < 200 / HELD * 2
    assert report.people.model.agreement == 1
    assert 0.8 < report.people.student.agreement <= 1
    assert 0.8 < report.people.rounded.agreement <= 1
    most = max(CHOICES, key=[said(text) for text in texts].count)
    assert report.people.most_frequent == pytest.approx(
        [said(text) for text in texts[:200]].count(most) / 200, abs=0.15
    )
    rows = [row for row in world.review() if row["text"] not in texts[:200]]
    rejected = [row | {"verdict": "reject"} for row in rows[::2]]
    world.judge([*rejected, *(row | {"verdict": "accept"} for row in rows[1::2])])
    after = distill(world.job, world.data, Options())
    assert after.people is not None
    right = 1 - len(rejected) / (len(rows) + 200)  # by all that people know, of which a share is held out
    assert after.people.rows > report.people.rows
    assert abs(after.people.model.agreement - right) < 0.1


def said(text: str) -> str:
    return CHOICES[int(np.argmax(by_words({"text": text})))]


def other(choice: str) -> str:
    return CHOICES[1 - CHOICES.index(choice)]


def test_groups_have_verdicts(made: Templates, tmp_path: Path) -> None:
    """Each group of audit.slices, of the rows that were held out."""
    world = made.world(student_job, tmp_path)
    texts = four_words(ROWS)
    world.rows({"text": texts, "place": ["here" if number % 3 else "there" for number in range(ROWS)]})
    world = world.changed(audit={"slices": ["place"], "limits": {"least_rows": 20}})
    report = distill(world.job, world.data, Options())
    assert [(each.column, each.value) for each in report.slices] == [("place", "here"), ("place", "there")]
    assert sum(each.rows for each in report.slices) == report.held
    assert {each.verdict for each in report.slices} <= {"pass", "not enough data"}
    assert set(report.to_json()["slices"][0]) == {"column", "value", "rows", "coverage", "agreement", "verdict"}


@pytest.mark.long
def test_answered_misses_judge_it(world: World) -> None:
    """Once there are enough of what clients asked for, the list's rows find no threshold; and it says how it turned out."""
    world = world.changed(input={"path": "queries.parquet", "key": ["text"], "include_misses": {}})
    texts = further(3 * ENOUGH * least_rows(0.9, 0.9))
    asked(world.data, [(text,) for text in texts])
    world.answer(by_words)
    report = world.publish()
    assert report.student is not None
    assert report.student.report is not None
    judging = report.student.report.asked
    assert ENOUGH * least_rows(0.9, 0.9) <= judging < len(texts)
    assert report.student.report.threshold is not None
    assert report.student.report.threshold.rows == judging
    assert report.student.report.judged_by == f"{judging} live queries"
    before = report.student.before
    assert before is not None
    assert str(before) in report.student.message
    assert 0.8 * before.answered <= before.right <= before.answered <= len(texts)
    record = Manifest.read(folder_of(world, 2)).student
    assert record is not None
    assert (record.checked, record.right) == (before.answered, before.right)


def test_a_few_answered_misses_are_held_out_beside_the_list(world: World) -> None:
    """And what was asked for long ago is no sample of what is asked now."""
    world = world.changed(input={"path": "queries.parquet", "key": ["text"], "include_misses": {}})
    asked(world.data, [(text,) for text in further(40)])
    world.answer(by_words)
    report = distill(world.job, world.data, Options())
    assert report.asked == 0
    assert report.threshold is not None
    assert report.threshold.rows == report.held


@pytest.mark.long
def test_misses_that_must_be_frequent_are_no_sample_of_all(world: World) -> None:
    """Where the job takes only queries that were asked several times, what is found with them is said to be about such."""
    world = world.changed(input={"path": "queries.parquet", "key": ["text"], "include_misses": {"at_least": 2}})
    texts = further(3 * ENOUGH * least_rows(0.9, 0.9))
    asked(world.data, [(text,) for text in texts * 2])
    world.answer(by_words)
    report = distill(world.job, world.data, Options())
    assert report.at_least == 2
    assert report.judged_by == f"{report.asked} live queries that were asked 2 times or more"


def test_old_misses_do_not_judge(world: World) -> None:
    """Those of more than eight weeks ago."""
    world = world.changed(input={"path": "queries.parquet", "key": ["text"], "include_misses": {}})
    asked(world.data, [(text,) for text in further(3 * ENOUGH * least_rows(0.9, 0.9))])
    [path] = world.data.misses.glob("*.parquet")
    table = pq.read_table(path)
    old = pa.array([now() - timedelta(weeks=9)] * len(table), pa.timestamp("us"))
    for name in ("first_seen", "last_seen"):
        table = table.set_column(table.schema.get_field_index(name), name, old)
    pq.write_table(table, path)
    world.answer(by_words)
    assert distill(world.job, world.data, Options()).asked == 0


def test_a_damaged_student_before_says_nothing_of_itself(world: World) -> None:
    """The next version does without."""
    (folder_of(world) / STUDENT).write_bytes(b"PK")
    world = world.changed(student={"text": "text", "agree": 0.8})
    report = world.publish()
    assert report.version == 2
    assert report.student is not None
    assert report.student.before is None


def test_no_library_no_hours_of_work(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What learning needs is looked for before the model is asked."""
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(Exception, match=r"batchinfer-cache\[train\]"):
        world.run()
