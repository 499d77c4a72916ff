"""What is known of predictions, as numbers, and the scores that a model makes of it in SQL."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from batchinfer.core.home import JobData
from batchinfer.errors import BatchinferError, NotFound, UsageError
from batchinfer.job import reader
from batchinfer.job.calibrate_spec import CalibrateSpec
from batchinfer.planning.prepare import Prepared
from batchinfer.publish.calibrated import Proposals
from batchinfer.publish.candidate import Candidate
from batchinfer.publish.other_scores import OtherScores
from batchinfer.versions.calibration import EDGE, Feature, Scale, ScoreModel
from tests.factories import LENIENT, World, model_job, write
from tests.inputs.test_upstream import ANY, KEY, bring, downstream, upstream
from tests.publish.conftest import echo
from tests.review.lists import CHECK, CHOICE, scores

TERMS = [
    ("Pfizer", "de", "Pfizer Impfstoff"),
    ("Pfizer", "de", "вакцина"),
    ("Pfizer", "ru", "вакцина"),
    ("Moderna", "ru", "Вакцина"),
    ("Moderna", "ru", "vaкцина"),
    ("Moderna", "ru", "прививка Moderna"),
]
MODEL = ScoreModel("2026-01-01T00:00:00Z", 60, 30, "d", None, "none", {}, None, 60, 0.9, 0.02, 0.01, 0.25, ())


def features(world: World) -> list[dict[str, Any]]:
    """Of all that the model proposes, in the order of the list."""
    with world.prepared() as prepared:
        proposals = Candidate(prepared.workspace).proposals()
        names = [column.name for column in proposals.columns]
        values = ", ".join(f'f."{name}"' for name in names)
        rows = prepared.workspace.db.execute(
            f"SELECT {values} FROM {proposals.features_sql} f JOIN {prepared.query_list.first_rows_sql} l USING (lookup_hash) "
            "ORDER BY l.row"
        ).fetchall()
    return [dict(zip(names, row, strict=True)) for row in rows]


def scores_of(prepared: Prepared, proposals: Proposals) -> list[float]:
    """What proposals have now, from the lowest."""
    rows = prepared.workspace.db.execute(f"SELECT score FROM {proposals.scores_sql} ORDER BY 1").fetchall()
    return [score for (score,) in rows]


def steep(weight: float) -> Feature:
    """One that no log-odds could hold."""
    return Feature("mass", Scale.PLAIN, 1.0, 1e-9, weight, 0.0)


def test_what_is_known_of_terms(tmp_path: Path) -> None:
    """The wanted choice's score, the term's form and scripts, and where else it stands, in capitals or not."""
    things, languages, terms = zip(*TERMS, strict=True)
    world = model_job(
        tmp_path,
        {"thing": things, "language": languages, "term": terms},
        input=CHECK["input"] | {"key": ["thing", "language", "term"]},
        prompt=CHECK["prompt"],
        output=CHOICE,
        match=CHECK["match"] | {"language": "language", "where": {"prediction": "No"}},
    )
    world.answer(lambda row: scores(0.75))
    found = features(world)
    assert [row["score"] for row in found] == pytest.approx([0.25] * 6)
    assert [row["mass"] for row in found] == pytest.approx([0] * 6)
    assert [row["length"] for row in found] == pytest.approx([math.log(1 + len(term)) for term in terms])
    said = {name: [row[name] for row in found] for name in ("other script", "foreign letters", "wrong script", "echo")}
    assert said == {
        "other script": [0, 1, 1, 1, 1, 1],
        "foreign letters": [0, 0, 0, 0, 1, 0],
        "wrong script": [0, 1, 0, 0, 0, 0],
        "echo": [1, 0, 0, 0, 0, 1],
    }
    assert [row["concepts"] for row in found] == pytest.approx([0, *[math.log(2)] * 3, 0, 0])
    assert [row["languages"] for row in found] == pytest.approx([0, *[math.log(2)] * 3, 0, 0])


def test_what_is_known_of_values(tmp_path: Path) -> None:
    """Of a choice which it is, and the score of the likeliest; of a text its form, and how many keys have it."""
    rows = {"id": [1, 2, 3], "text": ["a", "b", "b"]}
    world = model_job(tmp_path / "choice", rows, output=CHOICE)
    world.answer(lambda row: scores(0.9 if row["text"] == "a" else 0.2))
    assert [{name: round(value, 6) for name, value in row.items()} for row in features(world)] == [
        {"score": 0.9, "mass": 0, "answer No": 0},
        {"score": 0.8, "mass": 0, "answer No": 1},
        {"score": 0.8, "mass": 0, "answer No": 1},
    ]
    world = model_job(tmp_path / "text", rows)
    world.answer(echo)
    assert [row["keys"] for row in features(world)] == pytest.approx([0, math.log(2), math.log(2)])


def test_scores_are_what_the_model_says(tmp_path: Path) -> None:
    """SQL computes what the file says; missing values have a weight of their own, and nothing overflows."""
    world = model_job(tmp_path, {"id": [1, 2, 3], "text": ["a", "b", "c"]}, output=CHOICE)
    world.answer(lambda row: {"a": scores(0.9), "b": scores(1 - 1e-12), "c": [-math.inf, -math.inf]}[row["text"]])
    model = dataclasses.replace(MODEL, features=(Feature("score", Scale.LOGIT, 1.5, 0.5, 2.0, -1.0),))
    with world.prepared() as prepared:
        proposals = Candidate(prepared.workspace).proposals()
        proposals.score(model)
        found = scores_of(prepared, proposals)
        edge = math.log((1 - EDGE) / EDGE)
        odds = [0.25 + 2 * (math.log(9) - 1.5) / 0.5, 0.25 + 2 * (edge - 1.5) / 0.5]
        assert found == pytest.approx([1 / (1 + math.exp(-each)) for each in odds])
        for weight in (-900.0, 900.0):
            proposals.score(dataclasses.replace(model, features=(*model.features, steep(weight))))
            assert all(0 <= score <= 1 for score in scores_of(prepared, proposals))


def test_other_jobs_must_be_there_if_they_are_named(tmp_path: Path) -> None:
    """The job of a chained one's list gives what it has; one that the job file names must be served."""
    world = model_job(tmp_path, {"id": [1], "text": ["a"]})
    with world.prepared() as prepared:
        spec = prepared.workspace.spec
        chained = spec.model_copy(update={"input": spec.input.model_copy(update={"job": "gone", "path": None})})
        assert OtherScores(dataclasses.replace(prepared.workspace, spec=chained)).jobs == ()
        named = spec.model_copy(update={"calibrate": CalibrateSpec(scores=["gone"])})
        with pytest.raises(NotFound, match="gone"):
            OtherScores(dataclasses.replace(prepared.workspace, spec=named))


def voter(first: World, name: str, lists: dict[tuple[str, str], Any], **sections: Any) -> None:
    """Another published job that makes such lists as the first job of a chain does, in the same data folder."""
    place = first.job.folder.parent / name
    write(place / "queries.parquet", {part: [key[number] for key in lists] for number, part in enumerate(KEY)})
    content = {"name": name, "input": {"path": "queries.parquet", "key": KEY}, "output": ANY, "gate": LENIENT}
    (place / "job.yaml").write_text(yaml.safe_dump(content | sections), encoding="utf-8")
    bring(World(reader.load(str(place), {}), JobData(first.data.root, name)), lists)


@pytest.mark.long
def test_other_lists_vote(tmp_path: Path) -> None:
    """An item is listed by a share of the jobs that have a list for its key, whatever its case; by none where none has."""
    first = upstream(tmp_path)
    voter(first, "twin", {("Moderna", "de"): {"names": ["spikevax", "Impfung"]}})
    voter(first, "third", {("Moderna", "de"): {"names": []}, ("Pfizer", "de"): {"names": ["Moderna-Impfstoff"]}})
    world = downstream(first, calibrate={"votes": ["twin", "third"]})
    world.answer(lambda row: scores(0.9))
    with world.prepared() as prepared:
        found = prepared.workspace.db.execute(
            f"SELECT q_term FROM {prepared.query_list.first_rows_sql} ORDER BY row"
        ).fetchall()
    said = {term: row["votes"] for term, row in zip([term for (term,) in found], features(world), strict=True)}
    assert said == {"Spikevax": 0.5, "Moderna-Impfstoff": pytest.approx(0.5 / 3), "Модерна": None}
    with world.prepared() as prepared:
        others = OtherScores(prepared.workspace)
        assert others.fingerprints.keys() == {"shop", "twin", "third"}
        proposals = Proposals(prepared.workspace, others)
        model = dataclasses.replace(MODEL, features=(Feature("votes", Scale.LOGIT, 0.0, 1.0, 1.0, -3.0),))
        Candidate(prepared.workspace).proposals(["votes"]).score(model)
        odds = sorted((math.log(0.2), 0.0, -3.0))
        assert scores_of(prepared, proposals) == pytest.approx([1 / (1 + math.exp(-0.25 - each)) for each in odds])


@pytest.mark.long
def test_other_lists_of_long_keys_vote(tmp_path: Path) -> None:
    """Tables hold tokens of long keys and items, the other job's file the texts themselves, in lists that may be long, too."""
    key, item = ("Moderna " + "long " * 2000, "de"), "named " * 2000
    others = [f"name {number}" for number in range(10_000)]
    first = upstream(
        tmp_path, {key: {"names": ["Spikevax", item, "Impfung"]}, ("Pfizer", "de"): {"names": ["Biontech"]}}
    )
    voter(first, "twin", {key: {"names": [*others, item, "SPIKEVAX"]}, ("Pfizer", "de"): {"names": []}})
    world = downstream(first, calibrate={"votes": ["twin"]}, prompt={"template": "{{ term[:9] }} {{ vaccine[:9] }}"})
    world.answer(lambda row: scores(0.9))
    with world.prepared() as prepared:
        texts = prepared.workspace.texts
        found = prepared.workspace.db.execute(
            f"SELECT q_term FROM {prepared.query_list.first_rows_sql} ORDER BY row"
        ).fetchall()
        names = [name for (name,) in texts.whole_rows(found)]
    said = dict(zip(names, (row["votes"] for row in features(world)), strict=True))
    assert said == {"Spikevax": 0.75, item: 0.75, "Impfung": 0.25, "Biontech": 0.25}


@pytest.mark.parametrize(
    ("name", "sections", "said"),
    [
        (
            "texts",
            {"output": {"type": "text"}},
            "calibrate.votes: texts is looked up by vaccine, language and its predictions are string",
        ),
        ("missing", None, "There is no job missing"),
    ],
)
def test_who_cannot_vote(tmp_path: Path, name: str, sections: dict[str, Any] | None, said: str) -> None:
    """A job without lists, and one that is not there."""
    first = upstream(tmp_path)
    if sections is not None:
        voter(first, name, {("Moderna", "de"): "a"}, **sections)
    with (
        downstream(first, calibrate={"votes": [name]}).prepared() as prepared,
        pytest.raises(BatchinferError, match=said),
    ):
        OtherScores(prepared.workspace)


def test_another_jobs_score_of_a_long_key_is_found(tmp_path: Path) -> None:
    """Tables hold tokens of long keys, and the other job's file the keys themselves: they are the same key."""
    rows = {"text": ["short", *(f"{number} {'long ' * 2000}" for number in range(3))]}
    sections = {
        "input": {"path": "queries.parquet", "key": ["text"]},
        "output": CHOICE,
        "gate": LENIENT,
        "prompt": {"template": "{{ text[:9] }}"},
    }
    other = model_job(tmp_path / "a", rows, **{**sections, "name": "other"})
    other.answer(lambda row: scores(0.75))
    other.publish()
    world = model_job(tmp_path / "a", rows, **{**sections, "calibrate": {"scores": ["other"]}})
    world.answer(lambda row: scores(0.5))
    assert [row["score of other"] for row in features(world)] == [pytest.approx(0.75)] * 4


def test_only_items_of_lists_are_voted_on(tmp_path: Path) -> None:
    """A job whose rows are no items of another one's lists has nothing to vote on."""
    world = model_job(tmp_path, {"id": [1], "text": ["a"]}, calibrate={"votes": ["other"]}, output=CHOICE)
    with (
        world.prepared() as prepared,
        pytest.raises(UsageError, match=r"shop has no input\.explode, so there are no items that other"),
    ):
        OtherScores(prepared.workspace)


def test_a_model_is_read_as_it_was_written() -> None:
    """The file holds all of it; what is not a number, or no scale, is damage."""
    model = dataclasses.replace(MODEL, jobs={"other": "ab"}, features=(Feature("x", Scale.PLAIN, 0.0, 1.0, 2.0, 0.0),))
    assert ScoreModel.of(model.to_bytes()) == model
    assert model.excess == pytest.approx(math.sqrt(0.02**2 - 0.01**2))
    for old, new in (
        (b'"spread": 1.0', b'"spread": 0'),
        (b'"weight": 2.0', b'"weight": "2"'),
        (b'"plain"', b'"curved"'),
    ):
        with pytest.raises((ValueError, TypeError)):
            ScoreModel.of(model.to_bytes().replace(old, new))
    with pytest.raises(ValueError, match="format"):
        ScoreModel.of(b'{"format": 2}')
