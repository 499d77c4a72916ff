"""Arms against a baseline: verdicts, choices and clusters, with answers made up for it."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.core.intervals import wilson
from batchinfer.evaluate.compare import ArmVerdict, Rows, choose, judge_arms
from batchinfer.evaluate.metrics import Metric

ROWS = 100
ALONE = Rows(np.arange(ROWS) < 50, np.arange(ROWS))
GENERATOR = np.random.default_rng(3)


def marks(*right: range) -> np.ndarray:
    """One for the rows in these ranges."""
    found = np.zeros(ROWS)
    for rows in right:
        found[list(rows)] = 1
    return found


def test_right_and_wrong() -> None:
    """Wins and losses against the baseline, Wilson's interval, McNemar's p times the number of arms."""
    arms = [marks(range(60)), marks(range(85)), marks(range(20)), marks(range(1, 61))]
    judged = judge_arms(Metric("accuracy"), arms, 0, ALONE)
    assert [each.verdict for each in judged] == [
        ArmVerdict.BASELINE, ArmVerdict.BETTER, ArmVerdict.WORSE, ArmVerdict.NOTHING,
    ]  # fmt: skip
    assert [(each.wins, each.losses) for each in judged] == [(0, 0), (25, 0), (0, 40), (1, 1)]
    assert judged[1].p_alone == pytest.approx(2 * 0.5**25)
    assert judged[1].p == pytest.approx(2 * 2 * 0.5**25)
    assert judged[0].figure.interval == wilson(60, 100)
    assert judged[1].difference is not None
    assert judged[1].difference.value == pytest.approx(0.25)
    assert choose(judged, 0) == 1


def test_rows_of_one_source_are_little_evidence() -> None:
    """Twelve more right answers show a difference, but not if they are three source rows with four rows each."""
    arms = [marks(range(40)), marks(range(52))]
    assert judge_arms(Metric("accuracy"), arms, 0, ALONE)[1].verdict is ArmVerdict.BETTER
    fours = Rows(ALONE.positive, np.arange(ROWS) // 4)
    judged = judge_arms(Metric("accuracy"), arms, 0, fours)
    assert judged[1].verdict is ArmVerdict.NOTHING
    assert judged[1].figure.interval.low < wilson(52, 100).low


def test_areas_and_marks() -> None:
    """An arm whose scores say nothing is worse than one whose scores order well; one like the baseline is not told from it."""
    truth = np.where(ALONE.positive, 1.0, 0.0)
    good = truth + GENERATOR.normal(0, 0.6, ROWS)
    arms = [good, GENERATOR.random(ROWS), good + GENERATOR.normal(0, 0.05, ROWS)]
    for metric in (Metric("auc", "Yes"), Metric("f1")):
        judged = judge_arms(
            metric, arms if metric.kind == "area" else [np.clip(arm, 0, 1) * ALONE.positive for arm in arms], 0, ALONE
        )
        assert [each.verdict for each in judged][1:] == [ArmVerdict.WORSE, ArmVerdict.NOTHING]
        assert judged[1].losses > judged[1].wins
        assert judged[0].figure.interval.low < judged[0].figure.value < judged[0].figure.interval.high
        assert choose(judged, 0) == 0


def test_arms_that_answer_alike() -> None:
    """The same answers are no difference, and one arm alone has nothing to be compared with."""
    judged = judge_arms(Metric("auc", "Yes"), [np.linspace(0, 1, ROWS)] * 2, 0, ALONE)
    assert (judged[1].p, judged[1].verdict) == (1.0, ArmVerdict.NOTHING)
    [alone] = judge_arms(Metric("accuracy"), [marks(range(60))], 0, ALONE)
    assert alone.verdict is ArmVerdict.BASELINE
