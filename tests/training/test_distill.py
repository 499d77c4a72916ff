"""Students that learn a job's scores: what they are worth."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batchinfer.errors import BatchinferError, InputError, MissingExtra, NotFound, SpecError, TooFewRows, UsageError
from batchinfer.job import reader
from batchinfer.planning.prepare import Options
from batchinfer.publish.student_report import StudentReport, TurnedOut, VersionStudent
from batchinfer.publish.student_rows import HELD
from batchinfer.student.threshold import least_rows
from batchinfer.training.distill import distill
from tests.embedded import embeddings_in
from tests.factories import Templates, World, model_job
from tests.pupils import ROWS, by_chance, by_words, four_words, student_job

EMBEDDED = {"text": "text", "kind": "model2vec", "embeddings": "embeddings"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return Templates(tmp_path_factory.mktemp("made"))


@pytest.fixture
def world(made: Templates, tmp_path: Path) -> World:
    return made.world(student_job, tmp_path)


def learn(world: World) -> StudentReport:
    return distill(world.job, world.data, Options())


def test_it_learns_what_the_model_says(world: World) -> None:
    """On rows that it did not learn from, its scores are nearer to the model's than those of one that learned rounded answers."""
    report = learn(world)
    assert report.problem is None
    assert (report.rows, report.learned + report.held) == (ROWS, ROWS)
    assert report.held == pytest.approx(ROWS / HELD, rel=0.3)
    assert report.threshold is not None
    assert report.threshold.agreement >= 0.9
    assert report.student.spearman == pytest.approx(1, abs=0.05)
    assert report.student.brier < report.rounded.brier
    assert report.to_json()["served"] is True


def test_it_learns_numbers_of_choices(world: World) -> None:
    """Of two choices whose numbers these are, that is what it learns anyway; the report ranks by the number."""
    plain = learn(world)
    numbered = learn(world.changed(student={"text": "text", "score": {"tool": 10, "fruit": -10}}))
    assert numbered.to_json() == plain.to_json() | {
        "student": numbered.student.to_json(),
        "rounded": numbered.rounded.to_json(),
    }
    assert numbered.student.spearman == pytest.approx(plain.student.spearman)


def test_nothing_is_kept(world: World) -> None:
    """It only says what a student would be worth."""

    def files() -> set[str]:
        return {str(path) for path in world.data.folder.rglob("*") if "scratch" not in path.parts}

    before = files()
    assert learn(world).size > 0
    assert files() == before


def test_one_that_cannot_be_trusted(made: Templates, tmp_path: Path) -> None:
    """It says why."""
    report = learn(made.world(student_job, tmp_path, ROWS, by_chance))
    assert report.problem is not None
    assert report.problem.startswith("from no score on it can be shown to agree with the model 90% of the time, by ")
    assert report.to_json()["served"] is False


def test_one_that_would_mostly_abstain(made: Templates, tmp_path: Path) -> None:
    """max_abstain is the job's."""
    world = made.world(student_job, tmp_path).changed(student={"text": "text", "agree": 0.97, "max_abstain": 0.0})
    report = learn(world)
    assert report.problem is not None
    assert "of the queries unanswered, and student.max_abstain is 0%" in report.problem or "no score" in report.problem


@pytest.mark.parametrize(
    ("rows", "reply", "kind", "said"),
    [
        (40, by_words, TooFewRows, f"some {HELD * least_rows(0.9, 0.9)} rows are wanted"),
        (200, lambda _: [-0.1, -3.0], UsageError, "are all alike"),
        (200, lambda row: [-0.1 - len(row["text"]) / 1000, -3.0], UsageError, "The model says fruit to every row"),
    ],
    ids=["too few rows", "scores all alike", "one answer only"],
)
def test_what_nothing_can_be_learned_of(
    tmp_path: Path, rows: int, reply: Callable[[dict[str, Any]], list[float]], kind: type[BatchinferError], said: str
) -> None:
    """A sentence says what is wanted."""
    with pytest.raises(kind, match=said):
        learn(student_job(tmp_path, rows, reply))


def test_rows_without_a_text_teach_nothing(made: Templates, tmp_path: Path) -> None:
    """A null is a bad row, and not learned as an empty text; a list of nothing else is as good as none."""
    world = made.world(student_job, tmp_path)
    texts: list[str | None] = [*four_words(ROWS)]
    world.rows({"text": [None, *texts, None]})
    assert learn(world).rows == ROWS
    world.rows({"text": pa.nulls(40, pa.string())})
    with pytest.raises(TooFewRows, match="0 rows of shop with scores are too few"):
        learn(world)


def unevenly(row: dict[str, Any]) -> list[float]:
    """Whatever the text says, it is a fruit; of one kind of text the model is less sure, and now and then says the other."""
    fruit = by_chance(row)[0] < math.log(0.97)
    return [-0.05, -3.0] if fruit else [-0.9, -0.5]


def test_one_that_says_one_thing_only_says_so(made: Templates, tmp_path: Path) -> None:
    """It keeps its promise, by saying what the model nearly always says."""
    report = learn(made.world(student_job, tmp_path, ROWS, unevenly))
    assert (report.problem, report.always) == (None, "fruit")
    assert report.caution == "Whenever it answers it says fruit: look at how scores are ranked, not at answers."
    message = VersionStudent(report, report.problem, None).message
    assert message.startswith("Its student answers ")
    assert message.endswith(f"as the model. {report.caution}")


def test_what_the_one_before_came_to_is_told() -> None:
    """Whether there is a new one or not, and in what a run prints."""
    told = "The student before it answered 40 live queries that the model has answered since, 90% of them as the model."
    assert VersionStudent(None, "it is too little", TurnedOut(40, 36)).message == (
        f"The version has no student: it is too little. {told}"
    )
    none = "The student before it answered none of the live queries that the model has answered since."
    assert VersionStudent(None, "it is too little", TurnedOut(0, 0)).message.endswith(none)


def test_one_of_embeddings_stands_beside_a_linear_one(made: Templates, tmp_path: Path) -> None:
    """It is taken since the job says so, and its file is larger by the tokenizer; the report has what the other would be worth."""
    world = made.world(student_job, tmp_path)
    linear = learn(world)
    embeddings_in(world.job.folder / "embeddings")
    report = learn(world.changed(student=EMBEDDED))
    assert (report.kind, report.problem) == ("model2vec", None)
    assert (linear.kind, linear.linear) == ("linear", None)
    assert abs(report.student.agreement - linear.student.agreement) < 0.1
    assert report.to_json()["linear"] == pytest.approx(linear.student.to_json(), abs=1e-5)


@pytest.mark.parametrize(
    ("sections", "kind", "said"),
    [
        ({"embeddings": "nowhere"}, InputError, "student.embeddings: the embeddings "),
        (
            {"embeddings": "../../elsewhere"},
            SpecError,
            "student.embeddings: ../../elsewhere is outside the job's folder",
        ),
        ({}, MissingExtra, "wordllama, whose embeddings"),
    ],
)
def test_embeddings_that_cannot_be_had(
    world: World, sections: dict[str, str], kind: type[BatchinferError], said: str
) -> None:
    """It is said before anything is learned, and before a run asks the model."""
    world = world.changed(student={"text": "text", "kind": "model2vec"} | sections)
    for act in (learn, World.run):
        with pytest.raises(kind) as caught:
            act(world)
        assert said in str(caught.value)


def test_more_choices_than_there_is_room_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a weight for each token and choice."""
    embeddings_in(world.job.folder / "embeddings")
    monkeypatch.setattr("batchinfer.student.embeddings.most_choices", lambda _: 1)
    with pytest.raises(
        UsageError, match=r"These embeddings have 22 tokens, which allows 1 choices at most: .* or kind: linear"
    ):
        learn(world.changed(student=EMBEDDED))


def test_a_job_without_answers(tmp_path: Path) -> None:
    """There is nothing in the data folder, or nobody wants a student."""
    world = model_job(tmp_path, {"id": ["a"]})
    with pytest.raises(UsageError, match=r"has no section student: add student: \{text: id\}"):
        learn(world)
    world = student_job(tmp_path / "other", 40)
    shutil.rmtree(world.data.folder)
    with pytest.raises(NotFound):
        learn(world)


def number(score: dict[str, Any]) -> dict[str, Any]:
    """A section whose choices have numbers."""
    return {"student": {"text": "text", "score": score}}


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"student": {"text": "other"}}, "student.text: it should be the one column of input.key, which is text"),
        ({"input": {"path": "queries.parquet", "key": ["text", "language"]}}, "which is text, language"),
        ({"output": {"type": "text"}}, "student: it learns the scores of choices"),
        ({"student": {"text": "text", "kind": "forest"}}, "student.kind"),
        (
            {"student": {"text": "text", "embeddings": "folder"}},
            "student.embeddings: a linear student has none: add kind: model2vec.",
        ),
        ({"student": {"text": "text", "agree": 1}}, "student.agree"),
        ({"student": {}}, "student.text"),
        (number({"fruit": 1, "tool": 0, "car": 2}), "student.score.car: there is no such choice in output.choices"),
        (number({"fruit": 1}), "student.score: it should have a number for each choice, but has none for tool"),
        (number({"fruit": 1, "tool": 1}), "student.score: all choices have the same number"),
        (number({"fruit": 1, "tool": "much"}), "student.score.tool"),
        (number({"fruit": 1, "tool": float("nan")}), "student.score.tool"),
        (number({}), "student.score: it should have a number for each choice, but has none for fruit, tool"),
        (
            {"student": None, "serve": {"on_miss": "student"}},
            "serve.on_miss: the job has no student that could be asked",
        ),
        (
            {"input": {"path": "queries.parquet", "key": ["text"], "types": {"text": "integer"}}},
            "a student reads texts",
        ),
    ],
)
def test_a_section_that_does_not_fit_the_job(world: World, sections: dict[str, Any], said: str) -> None:
    """The job file is refused, with the line."""
    with pytest.raises(SpecError) as caught:
        world.changed(**sections)
    assert said in str(caught.value)
    assert "line" in str(caught.value) or ":" in caught.value.problems[0]


@pytest.mark.parametrize("values", [pa.array(range(ROWS)), pa.array([None, *([0.5] * (ROWS - 1))], pa.float64())])
def test_a_list_without_texts_teaches_nobody(world: World, values: pa.Array) -> None:
    """What the column holds is known once the list is read: the student would be published, and never asked."""
    world.rows(pa.table({"text": values}))
    for ask in (learn, World.publish):
        with pytest.raises(
            SpecError, match=r"line \d+: student\.text: a student reads texts, but the column text of the list is"
        ):
            ask(world)


def test_the_section_changes_no_answer(world: World) -> None:
    """Everything stays cached without it."""
    with world.changed(student=None).prepared() as prepared:
        assert prepared.plan.counts.cached == ROWS
    assert reader.load(str(world.job.folder), {}).spec.student is None
