"""Lists that the job's steps emptied: predictions that say so."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from batchinfer.job.spec import JobSpec
from batchinfer.publish.emptied import count_emptied
from tests.factories import LENIENT, model_job

NAMES = {"type": "object", "properties": {"names": {"type": "array", "minItems": 1}}, "required": ["names"]}
OUTPUT = {"type": "json", "schema": NAMES, "steps": [{"drop_echo": "text"}]}


def test_an_emptied_list_is_served_and_covers_its_key(tmp_path: Path) -> None:
    """It is no failure, the gate counts it as a prediction and says how many there are, and a look-up finds it."""
    gate = LENIENT | {"coverage": 0.6, "failures": 0.4}
    world = model_job(tmp_path, {"id": [1, 2, 3], "text": ["a", "b", "c"]}, output=OUTPUT, gate=gate)
    answers = {"a": '{"names":["x"]}', "b": '{"names":["b"]}', "c": '{"names":[]}'}
    world.answer(lambda row: answers[row["text"]])
    report = world.publish()
    assert (report.entries, report.failed) == (2, 1)
    assert "2 of 3 keys have a prediction" in report.gate[0].message
    assert report.gate[0].message.endswith("; 1 prediction has nothing left in the list after output.steps")
    assert json.loads(world.get(id=2) or b"{}")["prediction"] == {"names": []}


@pytest.mark.parametrize("steps", [[], ["dedupe"], [{"drop": "x"}]])
def test_only_lists_with_nothing_in_them_count(steps: list[object]) -> None:
    """Objects and lists are looked into, texts are not; where no step drops anything, nothing is counted."""
    texts = [
        "[]",
        '{"n": []}',
        '{"n": [], "s": "y"}',
        '{"n": [], "m": [1]}',
        '{"n": "[]"}',
        '"[]"',
        "[] no JSON",
        "[[]]",
    ]
    output = {"type": "json", "schema": {}, "steps": steps}
    spec = JobSpec.model_validate({"name": "shop", "input": {"path": "a.parquet", "key": ["id"]}, "output": output})
    with duckdb.connect() as db:
        db.execute("CREATE TABLE entries AS SELECT unnest(?) AS prediction", [texts])
        counted = count_emptied(db, "entries", spec)
    assert counted == (3 if steps == [{"drop": "x"}] else 0)
