"""Arms against a baseline on the same rows: values, intervals, and verdicts that hold for all arms together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchinfer.core.arrays import Floats
from batchinfer.core.intervals import Interval, wilson
from batchinfer.evaluate import stats
from batchinfer.evaluate.metrics import Metric
from batchinfer.evaluate.stats import ALPHA


class ArmVerdict(StrEnum):
    """What is shown of an arm."""

    BASELINE = "baseline"
    BETTER = "better"
    WORSE = "worse"
    NOTHING = "no difference shown"


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric's value on some rows.

    value: the value.
    interval: of the value.
    """

    value: float
    interval: Interval

    def to_json(self) -> dict[str, Any]:
        return {"value": rounded(self.value), "low": rounded(self.interval.low), "high": rounded(self.interval.high)}


@dataclass(frozen=True, slots=True)
class Judged:
    """An arm beside the baseline.

    figure: its value.
    wins: rows on which it does better than the baseline.
    losses: rows on which it does worse.
    difference: of the values, this arm's less the baseline's.
    p: the probability of such a difference if there were none, corrected for all arms; None for the baseline.
    p_alone: the same, were there no other arms.
    verdict: what is shown.
    """

    figure: Figure
    wins: int = 0
    losses: int = 0
    difference: Figure | None = None
    p: float | None = None
    p_alone: float | None = None
    verdict: ArmVerdict = ArmVerdict.BASELINE


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that arms are compared on.

    positive: for an area, which rows are positive.
    units: the source row of each, numbered from 0.
    """

    positive: NDArray[np.bool_]
    units: NDArray[np.int64]

    @property
    def count(self) -> int:
        """How many source rows there are."""
        return int(self.units.max()) + 1

    @property
    def is_clustered(self) -> bool:
        """Whether several rows come of one source row."""
        return self.count < len(self.units)


def rounded(value: float | None) -> float | None:
    """A figure as reports have it; None for what is no number."""
    return None if value is None or not np.isfinite(value) else round(float(value), 6)


def judge_arms(metric: Metric, marks: Sequence[Floats], baseline: int, rows: Rows) -> list[Judged]:
    """Each arm against the baseline, in the given order. marks: of each arm's rows, as `Metric.marks` gives them."""
    draws = stats.bootstrap(lambda weights: _values(metric, marks, rows, weights), rows.units)
    values = _values(metric, marks, rows, np.ones((1, len(rows.units))))[0]
    figures = [
        Figure(float(values[place]), _interval(metric, mark, draws[:, place], rows)) for place, mark in enumerate(marks)
    ]
    better = [_better(metric, mark, marks[baseline], rows) for mark in marks]
    wins, losses = ([int(each) for each in (np.array(better) == sign).sum(axis=1)] for sign in (1, -1))
    differences = values - values[baseline]
    errors = stats.standard_error(draws - draws[:, [baseline]], rows.count)
    if metric.kind == "right" and not rows.is_clustered:
        alone = stats.mcnemar(wins, losses)
    else:
        alone = stats.difference_p(differences, errors, rows.count)
    others = [place for place in range(len(marks)) if place != baseline]
    corrected = dict(zip(others, stats.holm(alone[others]), strict=True)) if others else {}
    return [
        Judged(figures[place])
        if place == baseline
        else Judged(
            figures[place], wins[place], losses[place],
            Figure(float(differences[place]), stats.around(float(differences[place]), float(errors[place]), rows.count)),
            float(corrected[place]), float(alone[place]), _verdict(float(differences[place]), float(corrected[place])),
        )
        for place in range(len(marks))
    ]  # fmt: skip


def figure_of(metric: Metric, marks: Floats, rows: Rows) -> Figure:
    """One arm's value by itself."""
    return judge_arms(metric, [marks], 0, rows)[0].figure


def choose(judged: Sequence[Judged], baseline: int) -> int:
    """The place of the best of the arms that are shown to be better; the baseline if none is."""
    better = [place for place, each in enumerate(judged) if each.verdict is ArmVerdict.BETTER]
    return max(better, key=lambda place: judged[place].figure.value, default=baseline)


def _verdict(difference: float, p: float) -> ArmVerdict:
    if not p < ALPHA:
        return ArmVerdict.NOTHING
    return ArmVerdict.BETTER if difference > 0 else ArmVerdict.WORSE


def _values(metric: Metric, marks: Sequence[Floats], rows: Rows, weights: Floats) -> Floats:
    """Each arm's value for each of (draws, rows) weights: (draws, arms)."""
    if metric.kind != "area":
        return stats.weighted_means(np.stack(marks, axis=1), weights)
    return np.stack([stats.weighted_areas(mark, rows.positive, weights) for mark in marks], axis=1)


def _interval(metric: Metric, marks: Floats, draws: Floats, rows: Rows) -> Interval:
    if metric.kind == "right" and not rows.is_clustered:
        return wilson(float(marks.sum()), len(marks))
    return stats.percentiles(draws)


def _better(metric: Metric, marks: Floats, baseline: Floats, rows: Rows) -> NDArray[np.int64]:
    """For each row 1 where the arm does better than the baseline, -1 where it does worse, else 0.

    For an area a row does better if it is on the right side of more rows of the other kind.
    """
    if metric.kind == "area":
        marks, baseline = stats.placements(marks, rows.positive), stats.placements(baseline, rows.positive)
    gap = marks - baseline
    return np.where(np.abs(gap) < stats.TINY, 0, np.sign(gap)).astype(np.int64)
