"""Figures of rows, and which metric fits an output."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from batchinfer.evaluate.answers import ArmAnswer
from batchinfer.evaluate.metrics import Metric, f1


@pytest.mark.parametrize(
    ("value", "wanted", "share"),
    [
        (["a", "b"], ["a", "b"], 1.0),
        (["b", "a", "a"], ["a", "b"], 1.0),
        (["a", "c"], ["a", "b"], 0.5),
        (["a"], ["a", "b", "c"], 0.5),
        ([], ["a"], 0.0),
        ([], [], 1.0),
        ({"names": ["a"], "note": "x"}, {"names": ["a"]}, 1.0),
        ({"names": ["a"], "others": ["a"]}, {"names": ["a"]}, 2 / 3),
        ("a", ["a"], 0.0),
        ([{"x": 1, "y": 2}], [{"y": 2, "x": 1}], 1.0),
    ],
)
def test_f1_counts_items(value: Any, wanted: Any, share: float) -> None:
    """Twice what both lists have, by what each has; lists of an object count by their field."""
    assert f1(value, wanted) == pytest.approx(share)


def test_marks_by_metric() -> None:
    """One for a right answer; the score for an area, with which a row without a prediction comes last."""
    given = [ArmAnswer("Yes", 0.9, {"Yes": 0.9, "No": 0.1}), ArmAnswer(reason="refused"), ArmAnswer(reason="refused")]
    right = ["Yes", "Yes", "No"]
    assert Metric("accuracy").marks(given, right).tolist() == [1, 0, 0]
    area = Metric("auc", "Yes")
    assert area.marks(given, right).tolist() == [0.9, -np.inf, np.inf]
    assert area.wanted(right).tolist() == [True, True, False]
    assert Metric("contains").marks([ArmAnswer(["a", "b"])], ["b"]).tolist() == [1]
