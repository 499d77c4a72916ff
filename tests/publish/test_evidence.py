"""The example rows of checks that failed, in the report and the manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchinfer.errors import GateFailed
from batchinfer.versions.manifest import Manifest
from tests.factories import World, model_job
from tests.publish.conftest import REFUSED, Make, echo


def refusal(world: World) -> tuple[str, dict[str, list[str]]]:
    """Publishes, expects a refusal, and returns its sentence and the examples, which are the same in report and manifest."""
    with pytest.raises(GateFailed) as raised:
        world.publish()
    assert raised.value.report is not None
    report = raised.value.report.to_json()
    checks = Manifest.read(world.data.rejected / report["candidate"]).gate.checks
    examples = {check.name: list(check.examples) for check in checks}
    assert examples == {check["name"]: list(check["examples"]) for check in report["gate"]}
    assert all(bool(check.examples) <= (not check.passed) for check in checks)
    return str(raised.value), {name: lines for name, lines in examples.items() if lines}


def test_uncovered_keys_and_failures_are_shown(make: Make) -> None:
    """Keys without a prediction are named, those of bad and conflicting rows too, and failures with their reasons."""
    world = make({"id": [1, 2, 3, 4, 5, 5], "text": ["a", "b", "c", None, "e", "f"]})
    world.answer(lambda row: REFUSED if row["id"] == 2 else None if row["id"] == 3 else echo(row))
    text, examples = refusal(world)
    assert examples == {
        "coverage": ["id=2", "id=3", "id=4", "id=5"],
        "failures": ["id=4: null_value", "id=5: conflicting_rows", "id=5: conflicting_rows", "id=2: refused"],
    }
    assert "\n" not in text
    assert text.endswith("To publish it anyway: batchinfer publish shop --candidate r1 --force --why TEXT")
    assert "diff" not in text  # there is nothing yet to compare it with


def test_what_an_import_covers_is_no_example(make: Make) -> None:
    """A bad row whose key has an imported prediction is a failure, but not uncovered."""
    world = make({"id": [1, 2], "text": [None, "b"]})
    world.take_in({"id": [1], "prediction": ["x"]})
    _, examples = refusal(world)
    assert examples == {"coverage": ["id=2"], "failures": ["id=1: null_value"]}


def test_entries_that_are_gone_or_changed_are_shown(make: Make) -> None:
    """Keys that would go are named, and values that would change with the old and the new one."""
    world = make({"id": [1, 2, 3], "text": list("abc")}, gate={"changed": 0.3})
    world.answer(echo)
    world.publish()
    world.rows({"id": [1, 2], "text": ["a", "b"]})
    world.answer(lambda row: "new\n \x1b[31mvalue" if row["id"] == 2 else echo(row), refresh=True)
    _, examples = refusal(world)
    assert examples == {"shrink": ["id=3"], "changed": ["id=2: about b → new  [31mvalue"]}


@pytest.mark.long
def test_carried_entries_are_shown(make: Make) -> None:
    """Too many entries that would be kept from the version before are a failed check, and named."""
    world = make({"id": [1, 2, 3, 4], "text": list("abcd")})
    world.answer(echo)
    world.publish()
    world = world.changed(prompt={"template": "{{ text }}!"}, gate={"failures": 1})
    world.answer(lambda row: REFUSED if row["id"] == 4 else echo(row))
    text, examples = refusal(world)
    assert "carried: 1 of 4 entries is kept from the version before (25.0%; at most 10.0% allowed)" in text
    assert examples == {"carried": ["id=4"]}
    assert world.changed(gate={"failures": 1, "carried": 0.25}).publish().carried == 1


@pytest.mark.long
def test_an_empty_candidate_is_refused(make: Make) -> None:
    """A candidate with fewer entries than the job wants is not served; an empty one never is."""
    world = make({"id": [1], "text": ["a"]}, gate={"coverage": 0, "failures": 1})
    text, examples = refusal(world)
    assert "rows: 0 entries would be served (at least 1 wanted)" in text
    assert examples == {}
    world.answer(echo)
    refusal(world.changed(gate={"rows": 2}))
    assert world.changed(gate={"rows": 1}).publish().version == 1


def test_at_most_five_examples_and_none_too_long(make: Make) -> None:
    """Of many rows five are shown, in the list's order, and long values are cut."""
    world = make({"id": [f"{number:02}" + "x" * 100 for number in range(20)], "text": list("abcdefghijklmnopqrst")})
    _, examples = refusal(world)
    assert [line[:5] for line in examples["coverage"]] == ["id=00", "id=01", "id=02", "id=03", "id=04"]
    assert {len(line) for line in examples["coverage"]} == {len("id=") + 60}


def test_gone_keys_are_named_by_the_columns_that_they_had(make: Make) -> None:
    """After a change of the lookup key, what would go is named as it is looked up now."""
    world = make({"id": [1, 2], "name": ["x", "y"], "text": ["a", "b"]})
    world.answer(echo)
    world.publish()
    world = world.changed(input={"path": "queries.parquet", "key": ["name"]})
    _, examples = refusal(world)
    assert sorted(examples["shrink"]) == ["id=1", "id=2"]


@pytest.mark.parametrize("name", ["text", "prediction", "lookup", "lookup_hash", "row", 'a"b', "it's größe"])
@pytest.mark.long
def test_a_key_of_any_name_has_examples(tmp_path: Path, name: str) -> None:
    """Key columns that bear the names of our own columns are shown like others."""
    rows = {name: ["x", "y", "z"], "other": ["1", "2", "3"]}
    world = model_job(
        tmp_path, rows, input={"path": "queries.parquet", "key": [name]}, prompt={"template": "{{ other }}"},
        gate={"changed": 0},
    )  # fmt: skip
    world.answer(lambda row: row["other"])
    world.publish()
    world.rows({name: ["x", "y", "q"], "other": ["1", "2", "9"]})
    world.answer(lambda row: "new" if row[name] == "x" else None, refresh=True)
    _, examples = refusal(world)
    assert examples == {"coverage": [f"{name}=q"], "shrink": [f"{name}=z"], "changed": [f"{name}=x: 1 → new"]}
