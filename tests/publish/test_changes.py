"""What a version changed of what was served before: counts, examples, and how it is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from batchinfer.cli.main import cli
from batchinfer.errors import GateFailed
from batchinfer.pipeline.publish import publish, publish_candidate
from batchinfer.planning.prepare import Options
from batchinfer.versions import pointers
from tests.factories import Quiet, World, imports_job
from tests.publish.conftest import OPEN, Make

ALL = {"added": 0, "removed": 0, "changed": 0, "examples": []}


def changes(world: World) -> dict[str, Any]:
    report = world.publish()
    assert report.changes is not None
    return report.changes.to_json()


def answers(world: World, told: dict[int, str]) -> None:
    """Imports these, in place of all that was imported before."""
    world.take_in({"id": list(told), "prediction": list(told.values())})


def test_the_first_version_only_adds(tmp_path: Path) -> None:
    """A first version adds all that it has; there is nothing to show examples against."""
    world = imports_job(tmp_path, {"id": [1, 2]}, gate=OPEN)
    answers(world, {1: "a", 2: "b"})
    assert changes(world) == ALL | {"added": 2}


def test_added_removed_and_changed_entries_are_counted_and_shown(make: Make) -> None:
    """Each kind has its count and at most three examples with key, old and new value; what is equal is not counted."""
    world = make({"id": list(range(10)), "text": list("abcdefghij")}, gate=OPEN)
    world.answer(lambda row: f"about {row['text']}")
    world.publish()
    world.rows({"id": list(range(5, 13)), "text": list("fghijklm")})
    world.answer(lambda row: f"new {row['text']}" if row["id"] in (5, 6) else f"about {row['text']}", refresh=True)
    found = changes(world)
    assert (found["added"], found["removed"], found["changed"]) == (3, 5, 2)
    examples = [
        (entry["change"], entry["query"]["id"], entry["old"] is None, entry["new"] is None)
        for entry in found["examples"]
    ]
    assert [kind for kind, *_ in examples] == ["added"] * 3 + ["removed"] * 3 + ["changed"] * 2
    assert {row[1:] for row in examples if row[0] == "added"} == {
        (10, True, False),
        (11, True, False),
        (12, True, False),
    }
    assert all(row[1] < 5 and row[2:] == (False, True) for row in examples if row[0] == "removed")
    assert {(e["query"]["id"], e["old"], e["new"]) for e in found["examples"] if e["change"] == "changed"} == {
        (5, "about f", "new f"),
        (6, "about g", "new g"),
    }


@pytest.mark.long
def test_people_s_changes_count_too(make: Make) -> None:
    """What people corrected or took out is no fault for the gate, but it is a change of what is served."""
    world = make({"id": [1, 2, 3], "text": ["a", "b", "c"]}, gate={"shrink": 0, "changed": 0})
    world.answer(lambda row: f"about {row['text']}")
    world.publish()
    rows = world.review()
    rows[0] |= {"verdict": "reject"}
    rows[1] |= {"verdict": "correct", "corrected": "right"}
    world.judge(rows)
    found = changes(world)
    assert (found["added"], found["removed"], found["changed"]) == (0, 1, 1)


@pytest.mark.long
def test_changes_are_against_what_is_served(tmp_path: Path) -> None:
    """While a version is pinned, the changes are of that one: it is what clients have."""
    world = imports_job(tmp_path, {"id": [1, 2, 3]}, gate=OPEN)
    answers(world, {1: "a"})
    world.publish()
    answers(world, {2: "b"})
    world.publish()
    pointers.pin(world.data, 1)
    answers(world, {3: "c"})
    assert changes(world)["added"] == 2


def test_a_list_with_another_key_replaces_all(make: Make) -> None:
    """Where the key changed, all that is served goes and all that is new comes, shown by the key that each has."""
    world = make({"id": [1, 2], "text": ["a", "b"]}, gate=OPEN)
    world.answer(lambda row: f"about {row['text']}")
    world.publish()
    world = world.changed(input={"path": "queries.parquet", "key": ["text"]})
    report = publish(world.job, world.data, Options(yes=True), Quiet())
    assert report.changes is not None
    assert str(report.changes) == "+2 −2 ~0"
    queries = [entry.query for entry in report.changes.examples]
    assert sorted(map(str, queries)) == ["{'id': 1}", "{'id': 2}", "{'text': 'a'}", "{'text': 'b'}"]


@pytest.mark.long
def test_a_refused_candidate_says_what_it_would_change(make: Make) -> None:
    """The report of a refusal has the changes, and so has that of the candidate when it is published."""
    world = make({"id": [1, 2], "text": ["a", "b"]}, gate={"changed": 0})
    world.answer(lambda row: f"about {row['text']}")
    world.publish()
    world.answer(lambda _: "new", refresh=True)
    with pytest.raises(GateFailed) as refused:
        world.publish()
    assert refused.value.report is not None
    assert refused.value.report.to_json()["changes"]["changed"] == 2
    report = publish_candidate(world.job, world.data, Options(), Quiet(), "r2", "they are right").to_json()
    assert (report["changes"]["changed"], len(report["changes"]["examples"])) == (2, 2)


def test_the_command_ends_with_the_changes(tmp_path: Path) -> None:
    """What a person reads has the three counts, and a table of examples whose cells are cut."""
    world = imports_job(tmp_path, {"id": [1, 2, 3]}, gate=OPEN)
    answers(world, {1: "a", 2: "b" * 5000})
    world.publish()
    answers(world, {1: "z", 3: "c"})
    result = CliRunner().invoke(cli, ["--home", str(world.data.root), "publish", str(world.job.path)])
    assert "Against what was served before: +1 −0 ~1 (added, removed, changed)." in result.stdout
    assert "id=3" in result.stdout
    assert len(result.stdout) < 2000
    as_json = CliRunner().invoke(cli, ["--home", str(world.data.root), "publish", str(world.job.path), "--json"])
    assert json.loads(as_json.stdout)["changes"]["added"] == 0


def test_a_refusal_shows_what_it_would_change(tmp_path: Path) -> None:
    """For people, too: the counts and examples stand beside the rows that the gate names."""
    world = imports_job(tmp_path, {"id": [1, 2, 3]}, gate=OPEN)
    answers(world, {1: "a", 2: "b"})
    world.publish()
    world = world.changed(gate=OPEN | {"changed": 0})
    answers(world, {1: "z", 3: "c"})
    result = CliRunner().invoke(cli, ["--home", str(world.data.root), "publish", str(world.job.path)])
    assert isinstance(result.exception, GateFailed)
    assert "Against what is served it would be: +1 −0 ~1 (added, removed, changed)." in result.stdout


@pytest.mark.long
def test_with_a_pin_no_change_is_measured_against_both(tmp_path: Path) -> None:
    """The current version may have the same entries while clients get others: which is which is said, with what differs."""
    world = imports_job(tmp_path, {"id": [0, 1]}, gate=OPEN)
    for value in ("Yes", "No"):
        world.take_in({"id": [0, 1], "prediction": [value, "Yes"]})
        world.publish()
    pointers.pin(world.data, 1)
    report = world.publish()
    assert (report.unchanged, report.same_as, report.pinned) == (True, 2, 1)
    assert report.changes is not None
    assert (report.changes.changed, report.changes.examples[0].old) == (1, "Yes")
    command = ["--home", str(world.data.root), "publish", str(world.job.path)]
    said = " ".join(CliRunner().invoke(cli, command).output.split())
    assert "No changes to publish: version 2, the current one, has the same entries." in said
    assert "Against version 1, which is served: +0 −0 ~1 (added, removed, changed)." in said
    assert "Version 1 is pinned and served in place of version 2: batchinfer unpin shop ends that." in said


@pytest.mark.parametrize("option", [["--no-publish"], ["--limit", "1"]])
def test_a_run_that_publishes_nothing_compares_nothing(tmp_path: Path, option: list[str]) -> None:
    """It says so, and which command does both."""
    world = imports_job(tmp_path, {"id": [0]}, gate=OPEN)
    world.take_in({"id": [0], "prediction": ["Yes"]})
    command = ["--home", str(world.data.root), "run", str(world.job.path), *option]
    said = " ".join(CliRunner().invoke(cli, command).output.split())
    assert "Nothing was published, and nothing was compared with what is served" in said
    assert said.endswith("batchinfer publish shop does both.")
