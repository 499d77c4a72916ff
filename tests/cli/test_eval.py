"""The command eval: tables and JSON, what it writes into the job file, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.evaluate.scorer import rated_job, rows
from tests.tiny import Cli


@pytest.fixture
def rated(tmp_path: Path, tiny: Path) -> Path:
    """A job in ./jobs, whose scripted engine gives each row the same scores."""
    script: dict[str, Any] = {"scores": [0.7, 0.3], "per_step": 8}
    model = {"id": str(tiny), "options": script}
    job, _ = rated_job(tmp_path / "jobs", tiny, rows(80), rows(20, 100), model=model)
    return job.path


@pytest.mark.long
def test_a_table_for_people(batchinfer: Cli, rated: Path) -> None:
    """Each arm has a line with its verdict, on 80 columns; below stand what so many rows can show, and what was chosen."""
    done = batchinfer("eval", "rated", "--shots", "0,2", "--draws", "2")
    assert done.code == 0, done.err
    for said in ("0-shot", "2-shot/2", "baseline", "difference", "corrected for 3 arms", "Chosen: 0-shot, the baseline",
                 "On the 40 rows to report on", "Best cut-off", "0-shot by score: the bar is", "evals/1"):  # fmt: skip
        assert said in done.out
    assert max(len(line) for line in done.out.splitlines() if line.startswith((" 0-shot", " 2-shot"))) <= 80
    assert "eval" in batchinfer("runs", "rated").out
    assert "<title>0-shot: " in (batchinfer.data / "rated" / "evals" / "1" / "reliability.svg").read_text()


@pytest.mark.long
def test_json_and_a_dry_run(batchinfer: Cli, rated: Path) -> None:
    """One JSON value, before and after; the second time nothing is asked."""
    before = batchinfer("eval", "rated", "--shots", "0,all", "--dry-run", "--json").json
    assert [(arm["arm"], arm["to_generate"]) for arm in before["arms"]] == [("0-shot", 80), ("20-shot", 40)]
    assert before["chosen"] is None
    assert batchinfer("eval", "rated", "--shots", "0,2", "--json").json["generated"] == 120
    after = batchinfer("eval", "rated", "--shots", "2,0", "--json").json
    assert (after["generated"], after["chosen"]) == (0, "0-shot")
    assert "to generate" in batchinfer("eval", "rated", "--dry-run").out


def test_nothing_is_written_where_nothing_is_better(batchinfer: Cli, rated: Path) -> None:
    """--select leaves the job file as it is if the baseline is chosen."""
    before = rated.read_text(encoding="utf-8")
    assert batchinfer("eval", "rated", "--shots", "0,2", "--select", "--json").json["selected"] is False
    assert rated.read_text(encoding="utf-8") == before


def test_a_baseline_of_ones_own(batchinfer: Cli, rated: Path) -> None:
    """The job's own prompt need not be among the arms then; if it is chosen against the job file's, that changes."""
    done = batchinfer("eval", "rated", "--shots", "2", "--baseline", "2-shot", "--select", "--json")
    assert [arm["arm"] for arm in done.json["arms"]] == ["job", "2-shot"]
    assert done.json["selected"] is True
    assert "+  examples:" in done.err
    prompt = yaml.safe_load(rated.read_text(encoding="utf-8"))["prompt"]
    assert (len(prompt["examples"]), prompt["shots"]) == (2, "all")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--shots", "two"], "two is neither a number nor all"),
        (["--select", "--dry-run"], "--select needs answers"),
        (["--draws", "0"], "--draws: expected an integer from 1 to 100, got '0'."),
        (["--template", "none.txt"], "none.txt cannot be read"),
        (["--model", "./nowhere"], "There is no model in"),
    ],
)
def test_bad_arguments(batchinfer: Cli, rated: Path, arguments: list[str], sentence: str) -> None:
    """One sentence and exit code 2."""
    done = batchinfer("eval", "rated", *arguments)
    assert done.code == 2
    assert sentence in done.err


def test_the_extra_is_named(batchinfer: Cli, rated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without SciPy the command says what to install."""
    monkeypatch.setitem(sys.modules, "scipy", None)
    done = batchinfer("eval", "rated")
    assert (done.code, done.sentence) == (2, "SciPy is not installed: pip install 'batchinfer-cache[eval]'.")
