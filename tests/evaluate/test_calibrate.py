"""Scores that verdicts calibrate: learned, published, matched by, and checked like all of a version."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from batchinfer.cli.main import cli
from batchinfer.core.home import JobData
from batchinfer.core.person import Nobody
from batchinfer.errors import GateFailed, StoreError, TooFewVerdicts, UsageError
from batchinfer.evaluate.calibrate import CalibrationReport, calibrate
from batchinfer.job.calibrate_spec import CalibrateSpec
from batchinfer.maintenance.erase import erase_entry
from batchinfer.maintenance.repair import repair
from batchinfer.pipeline.publish import publish_candidate
from batchinfer.planning.prepare import Options
from batchinfer.publish.calibrated import find_calibration
from batchinfer.publish.other_scores import OtherScores
from batchinfer.versions.calibration import ScoreModel
from batchinfer.versions.folders import folder_of
from batchinfer.versions.manifest import Manifest
from tests.factories import LENIENT, Quiet, Templates, World, imports_job, model_job
from tests.review.lists import CHOICE, scores

LANGUAGES = ["de", "fr", "ru", "el", "ar", "hi"]
ROWS, JUDGED = 240, 120
JOB: dict[str, Any] = {
    "input": {"path": "queries.parquet", "key": ["thing", "language", "term"]},
    "prompt": {"template": "{{ thing }} {{ language }} {{ term }}"},
    "output": CHOICE,
    "match": {"terms": ["term"], "concept": "thing", "language": "language", "min_score": 0.8},
    "calibrate": {"scores": ["likely"]},
    "gate": LENIENT | {"calibration": 0.25},
}


def noise(text: str, number: int) -> float:
    """From 0 to 1, always the same."""
    return int.from_bytes(hashlib.sha256(f"{number} {text}".encode()).digest()[:4]) / 2**32


def is_right(row: dict[str, Any]) -> bool:
    """The truth: most of one half of the terms, few of the other."""
    return noise(row["term"], 0) < 0.6


def yes(row: dict[str, Any]) -> float:
    """What the model says of it: too much, and only roughly so."""
    return 0.8 + 0.08 * is_right(row) + 0.1 * noise(row["term"], 1)


def likelihood(row: dict[str, Any]) -> float:
    return -6 + 2 * is_right(row) + 4 * noise(row["term"], 2)


def terms() -> list[dict[str, Any]]:
    return [
        {
            "thing": f"thing {number % 7}",
            "language": LANGUAGES[number % 6],
            "term": f"term {chr(97 + number % 26)}{number}",
        }
        for number in range(ROWS)
    ]


def columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The same as a table."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def judged_job(folder: Path) -> World:
    """A checking job of 240 terms, half of which a person judged; another job has their likelihoods."""
    rows = terms()
    columns = columns_of(rows)
    columns["family"] = [row["language"] if row["language"] == "hi" else "other" for row in rows]
    world = model_job(folder, columns, **JOB)
    other = imports_job(folder / "other", columns, name="likely", input=JOB["input"], gate=LENIENT)
    other = dataclasses.replace(other, data=JobData(world.data.root, "likely"))
    other.take_in(
        {name: columns[name] for name in rows[0]}
        | {"prediction": ["-"] * ROWS, "score": [likelihood(row) for row in rows]}
    )
    other.publish()
    world.answer(lambda row: scores(yes(row)))
    review = world.review()
    world.judge([row | {"verdict": "accept" if is_right(row) else "reject"} for row in review[::2]])
    return world


@pytest.fixture
def judged(templates: Templates, tmp_path: Path) -> World:
    """A copy of it."""
    return templates.world(judged_job, tmp_path)


def learned(world: World, group: str | None = None) -> CalibrationReport:
    return calibrate(world.job, world.data, Options(), group)


def entries(world: World) -> list[dict[str, Any]]:
    """Those of the version that is served."""
    with world.served() as version:
        return list(pq.read_table(version.folder / "predictions.parquet").to_pylist())


@pytest.mark.long
def test_from_verdicts_to_a_version(judged: World) -> None:
    """What was learned is what a version's scores are made by, its matcher chooses by, and its file says."""
    report = learned(judged).to_json()
    assert (report["verdicts"], report["group"], report["groups"], report["used"]) == (JUDGED, "language", 6, True)
    assert {"score", "score of likely"} <= {feature["name"] for feature in report["features"]}
    assert report["held_out_groups"]["auc"] > max(0.8, report["auc"]["before"])
    assert (report["auc"]["after"], report["ece"]["after"]) == tuple(
        report["held_out_groups"][name] for name in ("auc", "ece")
    )
    assert report["ece"]["before"] > 0.2 > report["ece"]["after"]
    assert sum(each["rows"] for each in report["reliability"]) == JUDGED
    published = judged.publish()
    assert published.version == 1
    found = entries(judged)
    model = [row for row in found if row["source"] == "model"]
    assert all(row["score"] is None for row in found if row["source"] == "review")
    unseen = sum(map(is_right, model)) / len(model)
    assert sum(row["score"] for row in model) / len(model) == pytest.approx(unseen, abs=0.12)
    assert all(json.loads(row["scores"])["Yes"] == pytest.approx(yes(row)) for row in model)
    with judged.served() as version:
        assert (version.folder / "calibration.json").read_bytes() == judged.data.calibration.read_bytes()
        good = sum(row["score"] is None or row["score"] >= 0.8 for row in found)
        assert 0 < len(version.matcher) == good < len(found)
        body = json.loads(version.get({name: model[0][name] for name in JOB["input"]["key"]}) or b"")
        assert body["score"] == pytest.approx(model[0]["score"])
        checks = {check.name: check for check in version.manifest.gate.checks}
        assert checks["calibration"].passed
    assert judged.publish().to_json()["unchanged"]
    with judged.served() as version:
        (version.folder / "calibration.json").write_bytes(b"{}")
        with pytest.raises(StoreError, match=r"calibration.json is damaged"):
            version.verify()


@pytest.mark.long
def test_another_choice_is_another_score(tmp_path: Path) -> None:
    """What was learned of the score of one choice says nothing of another one's, however the match section comes to ask for it."""
    match = {"terms": ["term"], "concept": "thing", "language": "language"}
    where = {"where": {"prediction": "Yes"}}
    sections = {"output": CHOICE | {"choices": ["No", "Yes"]}, "calibrate": {}, "match": match | where}
    world = model_job(tmp_path, columns_of(terms()), **(JOB | sections))
    world.answer(lambda row: scores(1 - yes(row)))
    world.judge([row | {"verdict": "accept" if is_right(row) else "reject"} for row in world.review()[::2]])
    assert learned(world).to_json()["auc"]["before"] > 0.7
    assert world.publish().version == 1
    told = "for the score of the choice Yes, which the match section does not ask for now"
    for other in ({}, {"where": {"prediction": "No"}}):
        with pytest.raises(GateFailed, match=told):
            world.changed(match=match | other).publish()
    content = json.loads(world.data.calibration.read_bytes())
    world.data.calibration.write_text(json.dumps(content | {"wanted": ""}))
    with pytest.raises(GateFailed, match="for the score of the likeliest choice"):
        world.publish()
    del content["wanted"]
    world.data.calibration.write_text(json.dumps(content))
    assert world.changed(match=match).publish().version == 2


@pytest.mark.long
def test_a_job_without_a_score_of_its_own(judged: World) -> None:
    """Another job's score is not what was there before."""
    text = judged.changed(output={"type": "text"}, match=None, calibrate={"scores": ["likely"], "group": "language"})
    text.answer(lambda row: "a name")
    text.judge([row | {"verdict": "accept" if is_right(row) else "reject"} for row in text.review()])
    report = learned(text).to_json()
    assert "score of likely" in {feature["name"] for feature in report["features"]}
    assert (report["auc"]["before"], report["ece"]["before"]) == (None, None)


@pytest.mark.long
def test_scores_change_and_predictions_do_not(judged: World) -> None:
    """What is learned again makes a new version, in which no value counts as changed; a review begins with the most uncertain."""
    judged.changed(calibrate=None, gate=LENIENT).publish()
    world = judged.changed(calibrate={"scores": ["likely"]}, gate=LENIENT)
    learned(world)
    report = world.publish().to_json()
    assert report["version"] == 2
    assert report["changes"]["changed"] == 0
    asked = [abs(float(row["score"]) - 0.5) for row in world.review()]
    assert asked == sorted(asked)
    assert asked[0] < 0.2


@pytest.mark.long
def test_a_version_that_an_entry_is_taken_out_of_keeps_the_file(judged: World) -> None:
    """Nor does a candidate lose it that is published; and a repair knows the model's own scores."""
    learned(judged)
    world = judged.changed(gate=LENIENT | {"rows": 1000})
    with pytest.raises(GateFailed):
        world.publish()
    [name] = [path.name for path in world.data.rejected.iterdir()]
    publish_candidate(world.job, world.data, Options(), Quiet(), name, "it is a test")
    gone = next(row for row in entries(world) if row["source"] == "model")
    erase_entry(world.job, world.data, {column: gone[column] for column in JOB["input"]["key"]})
    with world.served() as version:
        assert version.manifest.version == 2
        assert (version.folder / "calibration.json").read_bytes() == world.data.calibration.read_bytes()
    world.data.cache.write_bytes(b"damaged")
    repair(world.data, Nobody(), yes=True)
    with world.store.open() as db:
        own = db.execute("SELECT score, (scores ->> 'Yes')::DOUBLE FROM generations").fetchall()
    assert len(own) > JUDGED - 2
    assert all(score == yes for score, yes in own)


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({}, "nothing has been learned of verdicts yet"),
        ({"prompt": {"template": "Is {{ term }} in {{ language }} {{ thing }}?"}}, "for another prompt or model"),
        ({"calibrate": {}}, "for other scores of likely"),
        ({"output": CHOICE | {"prior": "list"}}, "for scores with output.prior: none"),
    ],
    ids=["nothing", "another question", "another job", "another reading"],
)
def test_the_gate_wants_scores_that_were_learned(judged: World, sections: dict[str, Any], why: str) -> None:
    """Where nothing was learned of what is asked now, scores are the model's own, which the gate can refuse."""
    if sections:
        learned(judged)
    world = judged.changed(**sections)
    with pytest.raises(GateFailed) as refused:
        world.publish()
    assert why in str(refused.value)
    [folder] = world.data.rejected.iterdir()
    assert "calibration.json" not in Manifest.read(folder).files


@pytest.mark.long
def test_another_kind_of_another_jobs_score(judged: World) -> None:
    """A calibration or prior changes scores, though the question stays: told, and refused by the gate; old files do not say."""
    model = learned(judged).model
    assert model.kinds == {"likely": "with output.prior: none"}
    for kinds, problem in (({"likely": "calibrated by 0"}, True), ({}, False), (model.kinds, False)):
        judged.data.calibration.write_bytes(dataclasses.replace(model, kinds=kinds).to_bytes())
        with judged.prepared() as prepared:
            found = find_calibration(prepared.workspace)
        assert ("for scores of likely that were made otherwise" in (found.problem or "")) is problem
        assert (found.model is None) is problem
    judged.publish()
    digest = hashlib.sha256(judged.data.calibration.read_bytes()).hexdigest()
    assert kinds_of(judged) == {"shop": f"calibrated by {digest}"}
    plain = judged.changed(calibrate=None, gate=LENIENT, output=CHOICE | {"prior": "list"})
    plain.publish()
    assert kinds_of(plain) == {"shop": "with output.prior: list"}


def kinds_of(world: World) -> dict[str, str]:
    """What another job with the same key would note of this one's scores."""
    with world.prepared() as prepared:
        spec = prepared.workspace.spec.model_copy(update={"calibrate": CalibrateSpec(scores=["shop"])})
        return OtherScores(dataclasses.replace(prepared.workspace, spec=spec)).kinds


def test_an_old_file_says_nothing_of_kinds(judged: World) -> None:
    """It is read as it was, and goes on giving scores."""
    learned(judged)
    content = json.loads(judged.data.calibration.read_bytes())
    del content["kinds"]
    judged.data.calibration.write_text(json.dumps(content))
    with judged.prepared() as prepared:
        assert find_calibration(prepared.workspace).model is not None


def test_too_few_verdicts(judged: World) -> None:
    """It ends with 1, and says how many more are wanted, and of how many of the 80 rows, 37 of them judged, to draw a sample for that."""
    few = judged.changed(input=JOB["input"] | {"where": {"language": ["de", "fr"]}})
    with pytest.raises(
        TooFewVerdicts, match=r"about 13 more are wanted: batchinfer precision shop --sample 25 --all --out FILE"
    ) as told:
        learned(few)
    assert (told.value.exit_code, told.value.code()) == (1, "too_few_verdicts")
    assert not judged.data.calibration.exists()


def test_too_few_rows_to_judge(judged: World) -> None:
    """No sample of this list would do."""
    few = judged.changed(input=JOB["input"] | {"where": {"language": ["de"]}})
    with pytest.raises(TooFewVerdicts, match=r"more are wanted, and \d+ are left to judge: learn of a longer list"):
        learned(few)


def test_only_a_checking_job_has_more_to_draw_from(judged: World) -> None:
    """Elsewhere a sample is of all predictions anyway, and the sentence names no flag."""
    sections: dict[str, Any] = {"match": None, "calibrate": None, "gate": LENIENT}
    world = judged.changed(input=JOB["input"] | {"where": {"language": ["de", "fr"]}}, **sections)
    with pytest.raises(TooFewVerdicts, match=r"--sample \d+ --out FILE"):
        learned(world)


@pytest.mark.long
def test_groups_are_a_column_of_the_list(judged: World) -> None:
    """--group names another column, of the prompt or not; one that is not there is told, and so are too few groups."""
    assert learned(judged, "thing").to_json()["groups"] == 7
    with pytest.raises(TooFewVerdicts, match="are on 2 groups"):
        learned(judged, "family")
    with pytest.raises(UsageError, match=r"no column famly to group verdicts by: did you mean family\?"):
        learned(judged, "famly")
    few = judged.changed(input=JOB["input"] | {"where": {"language": ["de"]}})
    with pytest.raises(TooFewVerdicts):
        learned(few)


def test_a_damaged_file_is_told_and_learned_again(judged: World) -> None:
    """Publishing stops at a file that it cannot read; calibrate writes another."""
    judged.data.calibration.write_text('{"format": 1}')
    with pytest.raises(StoreError, match="batchinfer calibrate shop"):
        judged.publish()
    learned(judged)
    assert ScoreModel.of(judged.data.calibration.read_bytes()).verdicts == JUDGED


def test_what_is_said_of_it(judged: World) -> None:
    """The command shows shares of right ones by score, what was looked at, and whether more verdicts would help."""
    command = ["--home", str(judged.data.root), "calibrate", str(judged.job.folder)]
    said = CliRunner().invoke(cli, command, catch_exceptions=False).output
    assert "6 values of language" in said
    assert "score of likely (+" in said
    assert "more would" in said.replace("\n", " ") or "more would help" in said
    assert not (folder_of(judged.data, 1)).exists()
