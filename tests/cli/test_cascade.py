"""What plan and run print of two models that share a list; both are loaded, one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cascades import PROMISE, SAMPLE
from tests.factories import LENIENT
from tests.scripted import read_diary
from tests.tiny import Cli, model_folder, numbered, write_job

ROWS = SAMPLE + 6


@pytest.mark.long
def test_plan_and_run_with_two_models(batchinfer: Cli, tmp_path: Path, tiny: Path) -> None:
    """JSON has what each was asked and is to be asked; people get a table and a sentence; everything else is as ever."""
    diary = tmp_path / "diary"
    script = {"per_step": 8, "scores": [0.75, 0.25], "diary": str(diary)}
    large = {"id": str(model_folder(tmp_path / "large", folds_case=True)), "options": script}
    write_job(
        tmp_path / "jobs" / "shop", numbered(ROWS), tiny, gate=LENIENT,
        model={"id": str(tiny), "options": script, "cascade": {"large": large} | PROMISE},
        output={"type": "choice", "choices": ["yes", "no"]},
    )  # fmt: skip
    plan = batchinfer("plan", "shop", "--json").json
    assert plan["to_generate"] == ROWS
    assert plan["cascade"]["large"] == {
        "model": large["id"], "fingerprint": plan["cascade"]["large"]["fingerprint"], "answers": None,
        "to_generate": None, "at_least": SAMPLE, "at_most": ROWS, "estimate_seconds": None,
    }  # fmt: skip
    said = batchinfer("plan", "shop").out
    assert f"{SAMPLE} to {ROWS}" in said
    assert "Where the small model is sure is found once both have answered a sample." in " ".join(said.split())

    done = batchinfer("run", "shop", "--json")
    shared = done.json["cascade"]
    assert (done.json["generated"], shared["threshold"], shared["problem"]) == (ROWS, 0.75, None)
    assert (shared["small"]["generated"], shared["large"]["generated"], shared["large"]["answers"]) == (
        ROWS,
        SAMPLE,
        SAMPLE,
    )
    assert shared["small"]["rows_per_second"] > 0
    assert "The small model's answer is taken from a score of 0.750 on: 100% of the 64 prompts" in done.err
    assert [entry[0] for entry in read_diary(str(diary))].count("load") == 2

    again = batchinfer("run", "shop")
    assert "two models" in again.out.lower()
    assert [entry[0] for entry in read_diary(str(diary))].count("load") == 2
    assert batchinfer("runs", "shop", "--json").json[1]["cascade"] == shared
    plan = batchinfer("plan", "shop", "--json").json
    assert [plan["cascade"][name]["to_generate"] for name in ("small", "large", "large_alone")] == [0, 0, 6]
    assert plan["cascade"]["large_alone"]["estimate_seconds"] > 0
    assert batchinfer("failures", "shop", "--json").json == []
    exported = tmp_path / "all.jsonl"
    assert batchinfer("export", "shop", exported, "--json").json["rows"] == ROWS
    assert exported.read_text(encoding="utf-8").count(str(large["id"])) == SAMPLE
