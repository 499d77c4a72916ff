"""What `distill` prints: for people, and for machines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchinfer.publish.slices import FairVerdict
from batchinfer.publish.student_report import PeopleLikeness, StudentReport, StudentSlice
from batchinfer.student.likeness import Likeness
from batchinfer.student.threshold import Threshold
from batchinfer.training import distill as module
from tests.tiny import Cli

STUDENT, ROUNDED, MODEL = (
    Likeness(0.91, 0.8, 0.12, 0.03),
    Likeness(0.87, 0.7, 0.2, 0.09),
    Likeness(0.83, None, 0.3, 0.11),
)
REPORT = StudentReport(
    "shop", "linear", 4_000, 3_000, 1_000, 0, 1, Threshold(0.8125, 0.6, 0.942, 1_000), 0.9, 0.9, 0.6, STUDENT, ROUNDED, 0.55, None, None,
    PeopleLikeness(50, STUDENT, MODEL, ROUNDED, 0.62, 40, 36), (StudentSlice("place", None, 250, 0.5, 0.95, FairVerdict.PASS),),
    98_765, None,
)  # fmt: skip


@pytest.fixture
def printed(batchinfer: Cli, shop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What is printed of the report, with some of it changed."""
    shop()

    def said(**changes: Any) -> str:
        monkeypatch.setattr(module, "distill", lambda *_: dataclasses.replace(REPORT, **changes))
        done = batchinfer("distill", "shop")
        assert done.code == 0
        return " ".join(done.out.split())

    return said


def test_what_people_are_told(printed: Callable[..., str]) -> None:
    """How like the model it is, beside plain baselines; when it answers; beside people; by groups; and what a version would have."""
    said = printed()
    for part in (
        "3,000 rows learned, 1,000 held out", "91.0%", "87.0%", "55.0%", "0.1200",
        "From a score of 0.812 on it answers 60.0% of the held-out rows, 94.2% of them as the model.",
        "At least 90.0% can be promised, with 90.0% confidence.", "Agreement with the model is not truth",
        "50 rows that people judged", "83.0%", "always the model's most frequent answer", "62.0%",
        "Of these it would answer 40, 90.0% of them as people.", "place=(none)", "A version would have it: 99 KB.",
    ):  # fmt: skip
        assert part in said
    assert "look at how scores are ranked" not in said


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"always": "fruit"}, "Whenever it answers it says fruit"),
        ({"most_frequent": 0.91}, "Always saying the most frequent answer agrees as often"),
        ({"asked": 240, "at_least": 3}, "of 240 live queries that were asked 3 times or more,"),
        ({"linear": MODEL}, "a linear one 83.0%"),
        ({"asked": 240}, "of 240 live queries,"),
        ({"threshold": None, "problem": "it is too little"}, "A version would have no student: it is too little."),
    ],
)
def test_what_should_make_one_careful(printed: Callable[..., str], changes: dict[str, Any], wanted: str) -> None:
    """A sentence each."""
    said = printed(people=None, slices=(), **changes)
    assert wanted in said
    assert "that people judged" not in said


def test_machines_get_all_of_it(batchinfer: Cli, shop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """One JSON value."""
    monkeypatch.setattr(module, "distill", lambda *_: REPORT)
    shop()
    found: dict[str, Any] = batchinfer("distill", "shop", "--json").json
    assert found == REPORT.to_json()
    assert found["people"].keys() == {"rows", "student", "model", "rounded", "most_frequent", "answered", "right"}
    assert (found["always"], found["at_least"], found["slices"][0]["coverage"]) == (None, 1, 0.5)


def test_a_job_without_the_section(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """It is told what to add."""
    shop()
    done = batchinfer("distill", "shop")
    assert done.code == 2
    assert "has no section student: add student: {text: " in done.sentence
