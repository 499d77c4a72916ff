"""Audits of versions: groups of rows, what is written of them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batchinfer.core.clock import iso, now
from batchinfer.core.records import Failure
from batchinfer.errors import BatchinferError, GateFailed, InputError, NotFound, SpecError, UsageError
from batchinfer.evaluate.audit import audit
from batchinfer.publish.sliced import SLICE_VALUES, read_slice_values
from batchinfer.publish.slices import FairVerdict
from tests.factories import LENIENT, Quiet, Reply, Templates, World, model_job, write
from tests.tiny import Cli

AUDIT = {"slices": ["language", "half"]}
COUNTS = {"en": 120, "my": 80, None: 4}


def job(folder: Path) -> World:
    """A job that answers English rightly, and half of the Burmese rows not at all, as a published version."""
    languages = [language for language, count in COUNTS.items() for _ in range(count)]
    ids = list(range(len(languages)))
    rows = {
        "id": ids, "text": [f"{language} {number}" for number, language in zip(ids, languages, strict=True)],
        "language": languages, "half": ["a" if number % 2 else "b" for number in ids], "empty": [None] * len(ids),
        "long": ["x" * 5000 + language if language else None for language in languages], "mark": ["\ufdd0 mark"] * len(ids),
    }  # fmt: skip
    world = model_job(folder, rows, audit=AUDIT, gate=LENIENT | {"golden": {"path": "golden.parquet", "accuracy": 0}})
    write(world.job.folder / "golden.parquet", {"id": ids, "answer": ["right"] * len(ids)})
    world.answer(says)
    world.publish()
    return world


def says(row: dict[str, Any]) -> Reply:
    language, _, number = row["text"].partition(" ")
    if language == "my" and int(number) % 4 == 0:
        return Failure(None, "parse", "cut_off", "The answer was cut off.")
    return "right" if language != "my" or int(number) % 4 != 1 else "wrong"


@pytest.fixture
def world(templates: Templates, tmp_path: Path) -> World:
    return templates.world(job, tmp_path)


@pytest.mark.long
def test_groups_are_counted_and_judged(world: World) -> None:
    """Coverage, failures by reason, accuracy with its interval and tokens of each group; the one that is worse fails."""
    found = {each.name: each for each in audit(world.job, world.data, None, Quiet()).slices}
    assert list(found) == ["language=en", "language=my", "language=(none)", "half=a", "half=b"]
    burmese = found["language=my"].to_json()
    assert (burmese["rows"], burmese["coverage"], burmese["failures"], burmese["accuracy"]) == (80, 0.75, 0.25, 0.5)
    assert burmese["reasons"] == {"cut_off": 20}
    assert burmese["cut_off"] == 20
    assert burmese["low"] < 0.5 < burmese["high"]
    assert found["language=my"].verdict is FairVerdict.FAIL
    assert found["language=en"].verdict is FairVerdict.PASS
    assert found["language=(none)"].verdict is FairVerdict.UNKNOWN
    assert found["language=en"].figures.tokens == 13
    assert found["language=en"].tokens_ratio == 1


def test_a_group_has_its_whole_name(world: World) -> None:
    """Also where it has a sign that tables have for themselves."""
    changed = world.changed(audit={"slices": ["mark"]})
    assert [each.value for each in audit(changed.job, changed.data, None, Quiet()).slices] == ["\ufdd0 mark"]


def test_long_texts_are_kept_out_of_the_table(world: World) -> None:
    """Tokens stand for them there, as everywhere."""
    with world.prepared() as prepared:
        read_slice_values(prepared.workspace, ["long", "language"])
        sql = f"SELECT max(strlen(COLUMNS(* EXCLUDE row))) FROM {SLICE_VALUES}"
        [(most, _)] = prepared.workspace.db.execute(sql).fetchall()
    assert most < 4096


def test_golden_rows_of_eval_will_do(world: World) -> None:
    """Where the gate has none, accuracy is that of the rows that prompts are compared by."""
    changed = world.changed(gate=LENIENT, eval={"golden": {"path": "golden.parquet"}})
    found = {each.name: each.figures for each in audit(changed.job, changed.data, None, Quiet()).slices}
    assert (found["language=my"].golden, found["language=my"].right) == (80, 40)


def test_a_card_and_a_report_are_written(world: World) -> None:
    """audit.json is what --json prints; the card names what fails and what was not tested."""
    report = audit(world.job, world.data, 1, Quiet())
    assert report.verdict is FairVerdict.FAIL
    assert json.loads((report.folder / "audit.json").read_text()) == json.loads(json.dumps(report.to_json()))
    card = (world.data.audits / "v1" / "card.md").read_text()
    assert "## Not tested\n\n- language=(none): fewer than 50 rows" in card
    assert "- language=my: failures 25.0%" in card
    assert "- language=my failed for: cut_off 20" in card
    assert "| language=my | 20 | - | - |" in card
    assert "| (the whole list) | 204 | 90.2% (85.3% to 93.6%)" in card
    assert "- Accuracy on 204 golden rows: 80.4%" in card
    assert "- Groups by other columns of the list: id, text, empty" in card
    assert "no terms for groups of people were exchanged" in card
    assert "Nobody gave a verdict or an answer" in card


@pytest.mark.long
def test_the_card_names_who_reviewed_what(world: World) -> None:
    """Each person with what they gave and when, how many entries that touches, and what was published by force."""
    world.judge([row | {"verdict": "accept"} for row in world.review()[:3]], author="Ann | Lee")
    world.take_in({"id": [100, 101], "prediction": ["given", "given"]}, author="Bo")
    world.publish()
    card = (audit(world.job, world.data, None, Quiet()).folder / "card.md").read_text()
    assert "people accepted 3, corrected 0 and imported 2; nobody said anything of the others" in card
    day = iso(now())
    assert day is not None
    assert f"| Ann \\| Lee | 3 | 0 | 0 | 0 | {day[:10]} | {day[:10]} |" in card
    assert f"| Bo | 0 | 0 | 0 | 2 | {day[:10]} | {day[:10]} |" in card


def test_the_command_ends_well_whatever_it_finds(world: World, monkeypatch: Any, capsys: Any) -> None:
    """Exit code 0 and one JSON value; as text a table and a sentence for each group that does not pass."""
    cli = Cli(monkeypatch, capsys, world.data.root)
    done = cli("audit", world.job.path, "--json")
    assert (done.code, done.json["verdict"], done.json["version"]) == (0, "fail", 1)
    assert {"column", "value", "rows", "coverage", "failures", "accuracy", "low", "high", "verdict"} <= done.json[
        "slices"
    ][0].keys()
    out = cli("audit", world.job.path).out
    assert "language=my: failures 25.0%" in out
    assert max(len(line) for line in out.splitlines() if line.startswith((" group ", " language="))) <= 80


def test_the_gate_refuses_what_stands_apart(world: World) -> None:
    """With gate.audit a candidate whose groups stand too far apart is not published; the refusal names them."""
    changed = world.changed(gate=LENIENT | {"audit": True, "golden": {"path": "golden.parquet", "accuracy": 0}})
    changed.take_in({"id": [0], "prediction": ["other"]})
    with pytest.raises(GateFailed, match=r"language=my.*not enough data for language=\(none\)"):
        changed.publish()


@pytest.mark.parametrize(
    ("sections", "error", "said"),
    [
        ({"audit": {"slices": ["langage"]}}, SpecError, "the list has no column langage: it has id, text, language"),
        ({"audit": {"slices": ["empty"]}}, InputError, "is null in every row"),
        ({"audit": {"slices": ["id"]}}, InputError, "has 204 different values"),
        ({"audit": {"slices": ["long"]}}, InputError, "has texts of more than 4,096 bytes, so that it makes no groups"),
        ({"audit": None}, UsageError, "names nothing to look at: add audit: "),
    ],
)
def test_what_cannot_be_audited(
    world: World, sections: dict[str, Any], error: type[BatchinferError], said: str
) -> None:
    """A column that is not there or makes no groups, and an audit of nothing, are refused in a sentence."""
    changed = world.changed(**sections)
    with pytest.raises(error, match=said):
        audit(changed.job, changed.data, None, Quiet())


def test_a_gate_without_anything_to_audit_is_no_job(world: World) -> None:
    """gate.audit needs audit.slices."""
    with pytest.raises(SpecError, match=r"gate.audit: the job has no audit.slices"):
        world.changed(audit=None, gate={"audit": True})


def test_a_version_that_is_not_there(world: World) -> None:
    """The error names those that are."""
    with pytest.raises(NotFound, match=r"has no version 7.*there are: 1"):
        audit(world.job, world.data, 7, Quiet())
