"""`finetune` on the command line: what is missing, what it prints, and what it is called with."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchinfer.cli.finetune import TrainingBar
from batchinfer.training import finetune as module
from batchinfer.training.finetune import FinetuneReport
from batchinfer.training.parity import Parity
from batchinfer.training.records import Scored, Step
from batchinfer.training.worth import Worth
from tests.tiny import Cli

REPORT = FinetuneReport(
    "shop", "adapters/0123456789abcdef", "0123456789abcdef" * 4, "bundled/x", 240, "golden rows", {"of golden rows": 3}, 30, 84.2,
    Worth(240, 0.9, 0.61, 0.8), Worth(240, 0.4, 0.83, 0.9), Parity(50, 0.0012),
)  # fmt: skip


@pytest.mark.parametrize("package", ["peft", "scipy"])
def test_what_is_not_installed_is_named(
    batchinfer: Cli, shop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    """With the extra that brings it, before anything else is done."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else found(name, *rest)
    )
    shop()
    done = batchinfer("finetune", "shop")
    assert done.code == 2
    assert f"{package} is not installed: pip install 'batchinfer-cache[finetune]'." in done.sentence


def test_a_job_without_the_section(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """It is told what to add, and nothing is made."""
    shop()
    done = batchinfer("finetune", "shop")
    assert (done.code, batchinfer.data.exists()) == (2, False)
    assert "has no section finetune" in done.sentence
    done = batchinfer("finetune", "shop", "--merge")
    assert (done.code, batchinfer.data.exists()) == (2, False)
    assert "has no model.adapter" in done.sentence
    done = batchinfer("finetune", "shop", "--merge", "--input", "other.parquet")
    assert (done.code, "--merge trains nothing" in done.sentence) == (2, True)


def test_what_it_prints(batchinfer: Cli, shop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before and after for people, with what to write into the job file; all of it for machines."""
    monkeypatch.setattr(module, "finetune", lambda *_: REPORT)
    shop()
    done = batchinfer("finetune", "shop")
    assert done.code == 0
    for part in (
        "240 rows learned in 30 steps and 84 s; held against 240 golden rows", "61.0%", "83.0%", "0.800", "0.900", "3 of golden rows.",
        "within 0.00120", "write adapter: adapters/0123456789abcdef under model",
    ):  # fmt: skip
        assert part in done.out
    found: dict[str, Any] = batchinfer("finetune", "shop", "--json").json
    assert found == REPORT.to_json()
    assert found["before"] == {"rows": 240, "loss": 0.9, "accuracy": 0.61, "area": 0.8}


@pytest.mark.parametrize(
    ("after", "worse"),
    [
        (Worth(240, 0.4, 0.83, 0.9), None),
        (Worth(240, 0.9, 0.7, 0.85), "loss"),
        (Worth(240, 0.5, 0.6, 0.79), "right answers, area"),
        (Worth(240, 0.5, 0.7, None), None),
    ],
)
def test_what_it_does_not_improve_is_said(
    batchinfer: Cli, shop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, after: Worth, worse: str | None
) -> None:
    """A better loss alone makes no better adapter, nor does a better order of rows with fewer right answers."""
    monkeypatch.setattr(module, "finetune", lambda *_: dataclasses.replace(REPORT, after=after))
    shop()
    said = " ".join(batchinfer("finetune", "shop").out.split())
    assert ("no better than the model alone in" in said) == (worse is not None)
    if worse is not None:
        assert f"no better than the model alone in: {worse}. More labels" in said


def test_elsewhere_than_on_a_terminal_there_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """The first step and the last, and between them one every ten seconds; scoring is shown alike."""
    with TrainingBar() as bar:
        bar.scored(Scored(32, 64))
        bar.scored(Scored(64, 64))
        bar._said = 0.0
        for number in range(1, 4):
            bar.step(Step(number, 3, 0.5, 2.0 * number))
    assert capsys.readouterr().err.splitlines() == [
        "scored 32 of 64", "scored 64 of 64", "step 1 of 3, loss 0.500, about 4 s to go", "step 3 of 3, loss 0.500",
    ]  # fmt: skip
