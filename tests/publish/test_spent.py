"""What a version's answers took: each has the share of its run that its tokens have."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from batchinfer.cache.schema import RunStatus
from batchinfer.core.cost import Cost
from batchinfer.versions.answers_cost import AnswersCost, VersionCost
from batchinfer.versions.folders import folder_of
from batchinfer.versions.manifest import Manifest
from tests.factories import World, imports_job, model_job

COST = {"per_gpu_hour": 3600.0, "currency": "USD"}


def cost_of(world: World, version: int) -> VersionCost:
    found = VersionCost.of(Manifest.read(folder_of(world.data, version)).document.get("cost"))
    assert found is not None
    return found


def ran(world: World, says: Any, device_seconds: float, money: float | None, *, currency: str = "USD") -> None:
    """A run that answered, and what it says that it used: the pretended engine computes 9 tokens for each answer."""
    run_id = world.answer(says)
    with world.store.open() as db:
        asked, output = db.execute(
            "SELECT coalesce(sum(prompt_tokens - cached_tokens), 0), coalesce(sum(output_tokens), 0) FROM generations WHERE run_id = ?",
            [run_id],
        ).fetchall()[0]
    cost = Cost("cpu", device_seconds, asked, 0, output, money, None if money is None else currency)
    with world.store.open(write=True) as db:
        db.execute("UPDATE runs SET status = 'done' WHERE run_id = ?", [run_id])
    world.store.finish_run(run_id, RunStatus.DONE, {"cost": cost.to_json()})


def test_a_version_costs_what_its_answers_took(tmp_path: Path) -> None:
    """Answers of two runs, at what each run paid; those that people gave cost nothing."""
    world = model_job(tmp_path, {"id": ["a", "b"]}, cost=COST, prompt={"template": "{{ id }}"})
    ran(world, lambda _: "x", 10.0, 10.0)
    world.rows({"id": ["a", "b", "c", "d"]})
    ran(world, lambda _: "y", 6.0, 12.0)
    world.take_in({"id": ["d"], "prediction": ["z"]})
    report = world.publish()
    assert report.version_cost is not None
    found = report.version_cost
    assert found == cost_of(world, 1)
    assert dataclasses.replace(found.whole, money=None) == AnswersCost(3, 3, 27, 13.0, None, "USD")
    assert found.whole.money == pytest.approx(16.0)
    assert found.whole.each == pytest.approx(16 / 3)


def test_groups_share_by_their_tokens(tmp_path: Path) -> None:
    """By each column of audit.slices; where two rows have one prompt, each has half of it; tiny groups are not told of."""
    languages = ["de"] * 3 + ["fr"] * 2 + ["th"]
    rows = {"id": ["a", "a", "b", "c", "d", "e"], "place": ["1", "2", "1", "1", "1", "1"], "language": languages}
    world = model_job(
        tmp_path, rows, cost=COST, audit={"slices": ["language"], "limits": {"least_rows": 2}},
        input={"path": "queries.parquet", "key": ["id", "place"]}, prompt={"template": "{{ id }}"},
    )  # fmt: skip
    ran(world, lambda _: "x", 50.0, 50.0)
    found = world.publish().version_cost
    assert found is not None
    assert found.whole.money == pytest.approx(50.0)
    assert [(group.value, group.cost.answers) for group in found.slices] == [("de", 3), ("fr", 2)]
    assert [group.cost.money for group in found.slices] == pytest.approx([20.0, 20.0])


def test_runs_that_named_no_price_are_reckoned_at_that_of_now(tmp_path: Path) -> None:
    """And those of older programs, which did not say what they used, are known of as unknown."""
    world = model_job(tmp_path, {"id": ["a"]}, cost=COST, prompt={"template": "{{ id }}"})
    ran(world, lambda _: "x", 7.0, None)
    world.rows({"id": ["a", "b"]})
    ran(world, lambda _: "x", 5.0, 99.0, currency="EUR")
    world.rows({"id": ["a", "b", "c"]})
    world.answer(lambda _: "x")
    found = world.publish().version_cost
    assert found is not None
    assert (found.whole.answers, found.whole.known) == (3, 2)
    assert found.whole.money == pytest.approx(12.0)
    priceless = world.changed(cost=None)
    assert priceless.publish(yes=True).unchanged


def test_a_job_without_a_model_has_no_costs(tmp_path: Path) -> None:
    """What people gave took no device."""
    world = imports_job(tmp_path, {"id": ["a"]})
    world.take_in({"id": ["a"], "prediction": ["z"]})
    assert world.publish().version_cost is None


@pytest.mark.parametrize(
    "document", [None, {}, {"answers": -1}, {"answers": 1, "known": 1, "tokens": 1, "device_seconds": "x"}]
)
def test_a_manifest_that_says_nothing_of_it(document: Any) -> None:
    """Of an older program, or damaged: there is no figure, and no failure."""
    assert VersionCost.of(document) is None
