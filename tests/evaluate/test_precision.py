"""Samples drawn for review, and the figure that their verdicts give."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from batchinfer.cli.main import cli
from batchinfer.core.output import OutputFile
from batchinfer.errors import GateFailed, NotFound, SpecError, UsageError
from batchinfer.evaluate.precision import draw_sample, version_precision
from batchinfer.maintenance.erase import erase_entry
from batchinfer.planning.prepare import Options
from batchinfer.publish.samples import read_samples
from batchinfer.serve.served_job import ServedJob
from batchinfer.versions.folders import folder_of
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.precision import read_figures
from tests.factories import LENIENT, Templates, World, model_job, write
from tests.review.lists import CHECK, CHOICE, scores

ROWS = 400
Row = dict[str, str]


def is_right(row: Row) -> bool:
    """The truth: every tenth answer is wrong."""
    return int(row["id"]) % 10 != 0


def listed(folder: Path, count: int) -> World:
    """A job that serves so many choices, the right ones with higher scores."""
    numbers = list(range(count))
    rows = {"id": numbers, "text": [f"text {number}" for number in numbers]}
    world = model_job(folder, rows, output=CHOICE, gate=LENIENT)
    world.answer(lambda row: scores(0.6 + 0.3 * (row["id"] % 10 > 2) + row["id"] % 7 / 100))
    world.publish()
    return world


@pytest.fixture
def served(templates: Templates, tmp_path: Path) -> World:
    """A copy of a job that serves 400 choices."""
    return templates.world(listed, tmp_path, ROWS)


def drawn(world: World, count: int, **options: Any) -> list[Row]:
    """A sample as people find it in a spreadsheet."""
    where, seed = options.pop("where", {}), options.pop("seed", "b")
    draw_sample(world.job, world.data, Options(), OutputFile.of(world.review_path), count, where, seed=seed, **options)
    with world.review_path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def judged(world: World, rows: list[Row], right: Callable[[Row], bool] = is_right, author: str = "Ann") -> None:
    """Marks all rows by the truth, and imports them."""
    world.judge([row | {"verdict": "accept" if right(row) else "reject"} for row in rows], author=author)


def figure(world: World, version: int | None = None) -> dict[str, Any]:
    return version_precision(world.job, world.data, Options(), version).to_json()


@pytest.mark.long
def test_the_precision_of_what_is_served(served: World) -> None:
    """The figure comes of the sample's verdicts, has an interval, and lies in evals/ as it was told."""
    judged(served, drawn(served, 100))
    found = figure(served)
    assert found["low"] < 0.9 < found["high"] < found["low"] + 0.12
    assert found["low"] <= found["estimate"] <= found["high"]
    assert (found["verdicts"], found["rows"], found["covered"], found["version"]) == (100, ROWS, ROWS, 1)
    written = json.loads((served.data.folder / "evals" / "precision-v1.json").read_text())
    assert {name: written[name] for name in found} == found


@pytest.mark.long
def test_wrong_rows_that_were_found_do_not_make_the_others_right(served: World) -> None:
    """Once rejected rows are gone, what nobody looked at is as good as the sample was, not as what is left of it."""
    judged(served, drawn(served, 150))
    before = figure(served)
    served.publish()
    after = figure(served)
    truth = 360 / after["rows"]
    assert after["rows"] < ROWS
    assert after["covered"] == after["rows"]
    assert after["verdicts"] == before["verdicts"] == 150
    assert before["low"] <= 0.9 <= before["high"]
    assert after["low"] <= truth <= after["high"] < 1
    assert figure(served, 1) == before


@pytest.mark.long
def test_two_people_that_disagree(served: World) -> None:
    """Both count, and the disagreement is shown; a person's later word replaces the earlier one."""
    rows = drawn(served, 60)
    judged(served, rows, lambda _: False)
    judged(served, rows, lambda _: True)
    alone = figure(served)
    judged(served, rows, lambda row: int(row["id"]) % 2 == 0, "Ben")
    both = figure(served)
    odd = sum(int(row["id"]) % 2 for row in rows)
    assert (alone["estimate"], alone["disagreements"]) == (1.0, 0)
    assert (both["verdicts"], both["disagreements"]) == (60, odd)
    assert 0.6 < both["estimate"] < 0.9


@pytest.mark.long
def test_verdicts_on_the_worst_cannot_be_used(served: World) -> None:
    """They are told apart from a sample's, of which too few are refused, with what to do."""
    judged(served, served.review()[:50])
    with pytest.raises(
        NotFound, match=r"0 verdicts of samples count here, .* 50 verdicts of other reviews cannot be used"
    ) as refused:
        figure(served)
    assert "batchinfer precision shop --sample" in str(refused.value)
    judged(served, drawn(served, 40)[:20])
    with pytest.raises(NotFound, match="20 verdicts of samples count here, and at least 30"):
        figure(served)
    assert not served.data.evals.exists()


@pytest.mark.long
def test_a_part_of_the_file_counts_too(served: World) -> None:
    """The rows are in no order, so whoever stops half-way has judged a smaller sample."""
    rows = drawn(served, 100)
    assert [row["id"] for row in rows] != sorted(row["id"] for row in rows)
    judged(served, rows[:60])
    found = figure(served)
    assert (found["verdicts"], found["drawn"]) == (60, 100)
    assert found["low"] < 0.9 < found["high"]


@pytest.mark.long
def test_a_second_sample_adds_to_the_first(served: World) -> None:
    """Rows that were judged are not asked for again, and all verdicts count together."""
    judged(served, first := drawn(served, 60))
    draw_sample(served.job, served.data, Options(), OutputFile.of(served.review_path), 60, {}, seed="c")
    with served.review_path.open(encoding="utf-8-sig", newline="") as file:
        second = list(csv.DictReader(file))
    assert not {row["id"] for row in first} & {row["id"] for row in second}
    judged(served, second)
    found = figure(served)
    assert found["verdicts"] == len(first) + len(second)
    assert len(found["samples"]) == 2
    assert found["low"] < 0.9 < found["high"]


def test_only_some_rows(served: World) -> None:
    """--where draws from some rows alone; the others are said to be unknown, and the interval allows for them."""
    world = served.changed(input={"path": "queries.parquet", "key": ["id"]})
    with pytest.raises(UsageError, match="there is no column size"):
        drawn(world, 10, where={"size": "1"})
    with pytest.raises(UsageError, match="no prediction has id=-1"):
        drawn(world, 10, where={"id": "-1"})
    rows = drawn(world, 500, where={"value": "Yes"})
    assert len(rows) == ROWS


@pytest.mark.long
def test_everything_judged_is_certain(templates: Templates, tmp_path: Path) -> None:
    """Of a small list people can judge all, and then there is no doubt."""
    world = templates.world(listed, tmp_path, 20)
    judged(world, drawn(world, 50))
    found = figure(world)
    assert (found["estimate"], found["low"], found["high"], found["verdicts"]) == (0.9, 0.9, 0.9, 20)


@pytest.mark.long
def test_new_rows_that_no_sample_stands_for(served: World) -> None:
    """Rows that came since are not known: the interval holds whatever they are."""
    judged(served, drawn(served, 200))
    numbers = list(range(500))
    served.rows({"id": numbers, "text": [f"text {number}" for number in numbers]})
    served.answer(lambda _: scores(0.9))
    served.publish()
    found = figure(served)
    assert found["rows"] - found["covered"] == 100
    assert found["high"] - found["low"] > 100 / found["rows"]


@pytest.mark.long
def test_the_gate(served: World) -> None:
    """Without verdicts, or with a lower end below the limit, nothing is published, and how many more are wanted is said."""
    world = served.changed(gate=LENIENT | {"precision": 0.8})
    numbers = list(range(ROWS - 1))
    world.rows({"id": numbers, "text": [f"text {number}" for number in numbers]})
    with pytest.raises(GateFailed, match=r"precision: 0 verdicts of samples count here.* --sample \d+ --out FILE"):
        world.publish()
    judged(world, drawn(world, 150))
    version = world.publish().version
    [check] = [check for check in manifest(world, version).gate.checks if check.name == "precision"]
    assert check.passed
    assert check.used is not None
    assert check.value == check.used["low"] > 0.8
    assert check.used["verdicts"] == 150
    strict = world.changed(gate=LENIENT | {"precision": 0.97})
    strict.rows({"id": numbers[:-1], "text": [f"text {number}" for number in numbers[:-1]]})
    with pytest.raises(GateFailed, match=r"a lower end of at least 97.0% wanted; more verdicts would not help"):
        strict.publish()


def manifest(world: World, version: int | None) -> Manifest:
    assert version is not None
    return Manifest.read(folder_of(world.data, version))


NAMES = [["jab", "shot", "flu"], ["jab"], ["sting", "jab"]]


@pytest.mark.long
def test_the_terms_of_lists(tmp_path: Path) -> None:
    """Of a list of names each counts: those that a correction keeps are right."""
    numbers = list(range(90))
    world = model_job(
        tmp_path, {"id": numbers, "text": [str(number) for number in numbers]}, gate=LENIENT,
        output={"steps": [{"split": ","}]},
    )  # fmt: skip
    world.answer(lambda row: ",".join(NAMES[row["id"] % 3]))
    world.publish()
    wanted = {json.dumps(NAMES[0]): '["jab", "shot"]', json.dumps(NAMES[2]): '["jab"]'}
    rows = drawn(world, 90)
    world.judge(
        [
            row
            | (
                {"verdict": "correct", "corrected": wanted[row["value"]]}
                if row["value"] in wanted
                else {"verdict": "accept"}
            )
            for row in rows
        ],
        author="Ann",
    )
    found = figure(world)
    assert (found["rows"], found["of"], round(found["estimate"], 6)) == (180, "terms", round(120 / 180, 6))


@pytest.mark.long
def test_the_recall(tmp_path: Path) -> None:
    """Where golden rows say what a right answer contains, the share of it that is served is told beside."""
    numbers = list(range(40))
    golden = {"path": "golden.parquet", "compare": "contains", "accuracy": 0.0}
    world = model_job(
        tmp_path, {"id": numbers, "text": [str(number) for number in numbers]}, gate=LENIENT | {"golden": golden},
        output={"steps": [{"split": ","}]},
    )  # fmt: skip
    write(world.job.folder / "golden.parquet", {"id": numbers[:20], "answer": ['["jab", "shot"]', '["jab"]'] * 10})
    world.answer(lambda row: "jab,flu" if row["id"] < 20 else "flu")
    world.publish()
    with pytest.raises(NotFound, match=r"0 verdicts.*of what 20 golden rows must contain, 66.7% is served"):
        figure(world)
    judged(world, drawn(world, 40))
    recall = figure(world)["recall"]
    assert (round(recall["estimate"], 6), recall["rows"]) == (round(20 / 30, 6), 20)
    assert recall["low"] < 20 / 30 < recall["high"]
    known = read_figures(world.data, 1)
    assert (known.recall and known.recall.to_json()) == recall | {"made_at": known.recall and known.recall.made_at}
    strict = world.changed(gate=LENIENT | {"golden": golden, "recall": 0.9})
    strict.take_in({"id": [39], "prediction": ['["other"]']})
    with pytest.raises(
        GateFailed, match=r"recall: 60.0% of what 20 golden rows must contain is served.*would not help"
    ):
        strict.publish()


def test_slices_make_strata(tmp_path: Path) -> None:
    """Each group of audit.slices is drawn from, by score; groups that are too small are drawn as one.

    Their column need be neither of the key nor of the template, and is one to draw by.
    """
    numbers = list(range(200))
    languages = ["de" if number % 4 else "en" if number % 8 else f"x{number}" for number in numbers]
    world = model_job(
        tmp_path, {"id": numbers, "text": list(map(str, numbers)), "language": languages}, gate=LENIENT, output=CHOICE,
        audit={"slices": ["language"]},
    )  # fmt: skip
    world.answer(lambda _: scores(0.9))
    drawn(world, 60)
    [sample] = read_samples(world.data)
    assert sorted(stratum.rows for stratum in sample.strata) == [10] * 5 + [30] * 5
    assert sample.rows == 200
    assert sum(stratum.drawn for stratum in sample.strata) == 60
    assert {int(row["id"]) % 8 for row in drawn(world, 5, where={"language": "en"}, seed="c")} == {4}
    with pytest.raises(SpecError, match="the list has no column langage"):
        drawn(world.changed(audit={"slices": ["langage"]}), 5)


def test_an_entry_that_is_erased_leaves_the_samples(served: World) -> None:
    """Nothing of it stays in what a sample was drawn from; the others do."""
    drawn(served, 50)
    erase_entry(served.job, served.data, {"id": "7"})
    [frame] = served.data.samples.glob("*/frame.parquet")
    assert pq.read_metadata(frame).num_rows == ROWS - 1
    assert len(list(frame.parent.iterdir())) == 2


@pytest.mark.long
def test_the_command(served: World) -> None:
    """As a person calls it: draw, mark, import, and be told; what does not go together is said."""
    job, file = str(served.job.folder), str(served.review_path)

    def call(*words: str) -> str:
        result = CliRunner().invoke(cli, ["--home", str(served.data.root), *words])
        return " ".join(result.output.split()) or str(result.exception)

    assert "--sample and --out go together" in call("precision", job, "--sample", "10")
    for words in (["--where", "id=1"], ["--all"]):
        assert "--where, --all and --format go with --sample" in call("precision", job, *words)
    assert f"Wrote 50 rows to {file}, drawn by chance from 400." in call(
        "precision", job, "--sample", "50", "--out", file
    )
    with served.review_path.open(encoding="utf-8-sig", newline="") as marked:
        judged(served, list(csv.DictReader(marked)), lambda _: True)
    assert call("precision", job).startswith("Version 1 of shop: 100.0% of the predictions are right (95 % interval 9")
    assert json.loads(call("precision", job, "--json"))["verdicts"] == 50
    served_job = ServedJob(served.data, records_misses=False)
    served_job.refresh()
    told = served_job.status().precision
    assert told is not None
    assert (told["estimate"], told["verdicts"]) == (1.0, 50)


@pytest.mark.long
def test_the_terms_of_a_checking_job(tmp_path: Path) -> None:
    """There the terms that are served are right or wrong, whatever the model said of others."""
    terms = [f"term {number}" for number in range(100)]
    world = model_job(tmp_path, {"thing": ["x"] * 100, "term": terms}, **CHECK, gate=LENIENT)
    world.answer(lambda row: scores(0.9 if int(row["term"][5:]) % 2 else 0.2))
    world.publish()
    rows = drawn(world, 40)
    assert len(rows) == 40
    assert all(int(row["term"][5:]) % 2 for row in rows)
    judged(world, rows, lambda row: int(row["term"][5:]) % 5 != 0)
    before = figure(world)
    assert (before["rows"], before["of"]) == (50, "terms")
    assert before["low"] < 0.8 < before["high"]
    world.publish()
    after = figure(world)
    assert after["verdicts"] == 40
    assert after["low"] < 40 / after["rows"] < after["high"]


@pytest.mark.long
def test_a_sample_of_all_that_a_checking_job_judged(tmp_path: Path) -> None:
    """It spans the cut-off, and what people accept below it says nothing of what is above it."""
    terms = [f"term {number}" for number in range(400)]
    job = CHECK | {"match": CHECK["match"] | {"min_score": 0.8}}
    world = model_job(tmp_path, {"thing": ["x"] * 400, "term": terms}, **job, gate=LENIENT)
    tenth = {term: number % 10 for number, term in enumerate(terms)}
    right = {term: tenth[term] < 8 or number // 10 % 2 == 0 for number, term in enumerate(terms)}
    world.answer(lambda row: scores(0.05 + tenth[row["term"]] / 10))
    world.publish()
    assert {tenth[row["term"]] for row in drawn(world, 40)} == {8, 9}
    rows = drawn(world, 250, everything=True, seed="c")
    assert {tenth[row["term"]] for row in rows} == set(range(10))
    judged(world, rows, lambda row: right[row["term"]])
    before = figure(world)
    above = [row for row in rows if tenth[row["term"]] >= 8]
    assert (before["rows"], before["covered"], before["verdicts"]) == (80, 80, len(above))
    assert before["low"] < 0.5 < before["high"] < 0.75
    world.publish()
    after = figure(world)
    unseen = {term for term in terms if tenth[term] >= 8} - {row["term"] for row in above}
    truth = 1 - sum(not right[term] for term in unseen) / after["rows"]
    assert after["rows"] == 80 + len(rows) - len(above) - sum(not right[row["term"]] for row in above)
    assert after["verdicts"] == len(above)
    assert after["low"] < truth < after["high"] < 1


@pytest.mark.long
def test_what_nobody_judged_has_no_figure(tmp_path: Path) -> None:
    """Verdicts on what is not served say nothing of what is: neither that it is right, nor that it is wrong."""
    terms = [f"term {number}" for number in range(40)]
    job = CHECK | {"match": CHECK["match"] | {"min_score": 0.8}}
    world = model_job(tmp_path, {"thing": ["x"] * 40, "term": terms}, **job, gate=LENIENT)
    world.answer(lambda row: scores(0.9 if row["term"] in ("term 1", "term 2") else 0.6))
    world.publish()
    rows = drawn(world, 40, everything=True)
    judged(world, [row for row in rows if float(row["score"]) < 0.8], lambda row: row["term"] == "term 3")
    with pytest.raises(
        NotFound, match=r"0 verdicts of samples .* those on all 2 terms that are served are needed"
    ) as told:
        figure(world)
    assert "precision shop --sample 2 " in str(told.value.fix)
    judged(world, [row for row in rows if float(row["score"]) > 0.8], lambda row: row["term"] == "term 1")
    assert (figure(world)["estimate"], figure(world)["verdicts"]) == (0.5, 2)


@pytest.mark.long
def test_what_people_accepted_needs_no_score(tmp_path: Path) -> None:
    """Whatever the match section wanted when it was accepted, and wants now: it is served, and right, only because people said so."""
    terms = [f"term {number}" for number in range(4)]
    job = CHECK | {"match": CHECK["match"] | {"min_score": 0.8}}
    world = model_job(tmp_path, {"thing": ["x"] * 4, "term": terms}, **job, gate=LENIENT)
    world.answer(lambda row: scores(0.3 + int(row["term"][5:]) / 10))
    world.publish()
    judged(world, drawn(world, 4, everything=True), lambda row: row["term"] == "term 0")
    with world.store.open() as db:
        assert db.execute("SELECT prediction FROM imports WHERE verdict = 'accept'").fetchall() == [('"Yes"',)]
    for where in ({"prediction": "Yes"}, {}):
        world = world.changed(match=CHECK["match"] | {"min_score": 0.8, "where": where})
        world.publish()
        assert served_rows(world) == [("term 0", "Yes", None, "review")]
        result = CliRunner().invoke(cli, ["--home", str(world.data.root), "precision", str(world.job.folder)])
        assert "all that is served (1 terms) is there only because people said so" in " ".join(result.output.split())
    with world.store.open(write=True) as db:  # as it was written once
        db.execute("UPDATE imports SET prediction = NULL WHERE verdict = 'accept'")
    world.publish()
    assert served_rows(world) == [("term 0", "Yes", None, "review")]


def served_rows(world: World) -> list[tuple[Any, ...]]:
    """Term, prediction, score and source of what the newest version holds."""
    newest = max(world.data.versions.glob("0*"))
    rows = pq.read_table(newest / "predictions.parquet").to_pylist()
    return [(row["term"], row["prediction"], row["score"], row["source"]) for row in rows]
