"""Failures keep what is served, and imports win."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchinfer.cache import imports
from batchinfer.versions import pointers
from batchinfer.versions.manifest import Manifest
from tests.factories import Reply, World, imports_job
from tests.publish.conftest import (
    OPEN,
    REFUSED,
    Make,
    echo,
    entries,
    folder,
)

# Failures keep what is served


def failing(served: Make, on_failure: str) -> World:
    """A served version of three keys, of which two fail after the question changed."""
    world = served(3, on_failure=on_failure, prompt={"template": "{{ text }}!"}, gate=OPEN)
    replies: dict[int, Reply] = {1: "new", 2: REFUSED, 3: None}
    world.answer(lambda row: replies[row["id"]])
    return world


@pytest.mark.long
def test_what_fails_keeps_what_is_served(served: Make) -> None:
    """Under on_failure: keep, rows that failed or are left keep their bodies to the byte, and are marked and counted."""
    world = failing(served, "keep")
    kept = world.get(id=2)
    report = world.publish()
    assert (report.version, report.carried, report.entries) == (2, 2, 3)
    assert (world.get(id=2), json.loads(world.get(id=1) or b"")["prediction"]) == (kept, "new")
    assert {number: row["carried"] for number, row in entries(world, 2).items()} == {1: False, 2: True, 3: True}
    assert Manifest.read(folder(world, 2)).carried == 2
    assert world.publish().version is None  # and carrying on is no news


@pytest.mark.long
def test_what_fails_keeps_what_a_pin_serves(make: Make) -> None:
    """While a version is pinned, rows that fail keep its predictions, not those of the one that was rolled back from."""
    world = make({"id": [1, 2], "text": ["a", "b"]}, on_failure="keep", gate=OPEN)
    world.answer(lambda row: "good")
    world.publish()
    world.answer(lambda row: "bad", refresh=True)
    world.publish()
    pointers.roll_back(world.data)
    world = world.changed(prompt={"template": "{{ text }}!"})
    world.answer(lambda row: REFUSED if row["id"] == 2 else "new")
    report = world.publish()
    assert (report.version, report.carried, report.pinned) == (3, 1, 1)
    assert {number: row["prediction"] for number, row in entries(world, 3).items()} == {1: "new", 2: "good"}


@pytest.mark.long
def test_what_is_carried_is_carried_on(served: Make) -> None:
    """A kept prediction stays for as long as its row has no other, and goes when it has one."""
    world = failing(served, "keep")
    world.publish()
    world.rows({"id": [1, 2, 3, 4], "text": ["a", "b", "c", "d"]})
    world.answer(lambda row: "late" if row["id"] == 4 else None)
    assert (world.publish().carried, entries(world, 3)[2]["carried"]) == (2, True)
    world.answer(lambda row: "at last", retry_failed=True)
    assert world.publish().carried == 0
    assert json.loads(world.get(id=2) or b"")["prediction"] == "at last"


def test_what_fails_is_dropped_where_the_job_says_so(served: Make) -> None:
    """Under on_failure: drop, rows that failed or are left are not served any more."""
    world = failing(served, "drop")
    report = world.publish()
    assert (report.carried, report.entries) == (0, 1)
    assert (world.get(id=2), world.get(id=3)) == (None, None)


def test_keys_that_left_the_list_are_not_carried(served: Make) -> None:
    """Only keys of the list keep their predictions; others go with their rows."""
    world = failing(served, "keep")
    world.rows({"id": [1, 2], "text": ["a", "b"]})
    assert world.publish().entries == 2
    assert world.get(id=3) is None


def test_rows_that_became_bad_keep_what_is_served(served: Make) -> None:
    """A row that turns out bad this time, or conflicts with another, keeps its prediction like any other failure."""
    world = served(3, gate=OPEN)
    world.rows({"id": [1, 2, 3, 3, 4], "text": [None, "b", "c", "other", "d"]})
    world.answer(echo)
    report = world.publish()
    assert (report.bad, report.carried, report.entries) == (3, 2, 4)
    assert json.loads(world.get(id=1) or b"")["prediction"] == "about a"
    assert json.loads(world.get(id=3) or b"")["prediction"] == "about c"


def test_nothing_is_carried_into_another_key(make: Make) -> None:
    """When the job's key changes, the next version begins afresh."""
    world = make({"id": [1, 2], "name": ["x", "y"], "text": ["a", "b"]}, gate=OPEN)
    world.answer(echo)
    world.publish()
    world = world.changed(input={"path": "queries.parquet", "key": ["name"]})
    report = world.publish()
    assert (report.version, report.carried, report.entries) == (2, 0, 2)
    assert world.get(name="x") is not None


def test_nothing_is_carried_into_another_kind_of_prediction(served: Make) -> None:
    """When a job's texts become JSON values, older texts are not served as values."""
    world = served(2, gate=OPEN)
    world = world.changed(output={"type": "json", "schema": {}})
    world.answer(lambda row: "[1]" if row["id"] == 1 else REFUSED)
    assert (world.publish().carried, world.get(id=2)) == (0, None)


# Imports


def test_imports_win_and_may_lie_beyond_the_list(served: Make) -> None:
    """An import takes the place of the model's answer, and of an older import; keys beyond the list are served too."""
    world = served(2, gate=OPEN)
    world.take_in({"id": [1, 99], "prediction": ["first", "beyond"]})
    world.take_in({"id": [1], "prediction": ["second"]})
    report = world.publish()
    assert (report.entries, report.carried) == (3, 0)
    assert [json.loads(world.get(id=number) or b"")["prediction"] for number in (1, 2, 99)] == [
        "second",
        "about b",
        "beyond",
    ]
    checks = {check.name: check.value for check in report.gate}
    # a key beyond the list covers nothing, and what people changed is no change
    assert checks == {"coverage": 1.0, "failures": 0.0, "rows": 3, "shrink": 0.0, "changed": 0.0, "carried": 0.0}


def test_an_import_for_another_lookup_key_is_left_out(tmp_path: Path) -> None:
    """An import whose query has not the columns of today's lookup key does not stop a publish, and is not served."""
    world = imports_job(tmp_path, {"id": [1], "size": [9]}, gate=OPEN)
    world.take_in({"id": [1], "prediction": ["old"]})
    world = world.changed(input={"path": "queries.parquet", "key": ["id", "size"]})
    world.take_in({"id": [2], "size": [7], "prediction": ["new"]})
    assert world.publish().entries == 1
    assert json.loads(world.get(id=2, size=7) or b"")["prediction"] == "new"


def test_an_import_that_was_taken_back_is_not_carried(make: Make) -> None:
    """After an undo the model's answer is served again, or none: what people took back is never kept."""
    world = make({"id": [1, 2], "text": ["a", "b"]}, gate=OPEN)
    world.answer(lambda row: echo(row) if row["id"] == 1 else REFUSED)
    world.take_in({"id": [1, 2, 3], "prediction": ["x", "y", "z"]})
    world.publish()
    imports.remove_import(world.store, 1)
    world.publish()
    assert json.loads(world.get(id=1) or b"")["prediction"] == "about a"
    assert (world.get(id=2), world.get(id=3)) == (None, None)


def test_a_job_without_a_model_lives_by_imports(tmp_path: Path) -> None:
    """A job with neither prompt nor model is run and published from its imports alone."""
    world = imports_job(
        tmp_path, {"id": ["a", "b"]}, input={"path": "queries.parquet", "key": ["id"], "normalize": ["casefold"]}
    )
    world.take_in({"id": ["A", "B"], "prediction": ["x", "y"]})
    report = world.run()
    assert (report.status, report.cached, report.remaining, report.version) == ("done", 2, 0, 1)
    assert json.loads(world.get(id="a") or b"")["prediction"] == "x"
