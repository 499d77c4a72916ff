"""What rows can show: the promises of the statistics, tried on thousands of simulated experiments."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from batchinfer.evaluate import power, stats
from batchinfer.evaluate.power import Comparison

EXPERIMENTS, ARMS, ROWS = 2000, 5, 120
GENERATOR = np.random.default_rng(11)


def right_or_wrong(shares: list[tuple[float, float]], rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Wins and losses of arms in so many experiments. shares: for each arm those of the rows that it wins and loses."""
    found = [GENERATOR.multinomial(rows, [wins, losses, 1 - wins - losses], EXPERIMENTS) for wins, losses in shares]
    return (np.stack([arm[:, place] for arm in found], axis=1) for place in (0, 1))  # type: ignore[return-value]


def test_arms_that_are_alike_are_rarely_called_different() -> None:
    """Of 2,000 experiments with five arms that are equally often right, at most 6.2 % show a difference anywhere."""
    right = GENERATOR.random((EXPERIMENTS, ARMS, ROWS)) < np.where(
        GENERATOR.random((EXPERIMENTS, 1, ROWS)) < 0.7, 0.9, 0.3
    )
    wins, losses = (
        (one & ~other).sum(axis=2) for one, other in ((right[:, 1:], right[:, :1]), (right[:, :1], right[:, 1:]))
    )
    shown = (stats.holm(stats.mcnemar(wins, losses)) < stats.ALPHA).any(axis=1)
    assert shown.mean() <= 0.062
    assert shown.any()  # it is no test that never says anything


@pytest.mark.parametrize("rows", [60, 120, 480])
def test_the_smallest_difference_is_shown_as_often_as_promised(rows: int) -> None:
    """2,000 experiments in which one of four arms differs by what a dry run says can be shown: found in 77 % at least."""
    comparison = Comparison("right", ARMS - 1)
    difference = power.smallest_difference(comparison, rows)
    assert difference is not None
    disagreement = max(power.DISAGREEMENT, difference)
    even = (disagreement / 2, disagreement / 2)
    uneven = ((disagreement + difference) / 2, (disagreement - difference) / 2)
    wins, losses = right_or_wrong([uneven, even, even, even], rows)
    shown = stats.holm(stats.mcnemar(wins, losses))[:, 0] < stats.ALPHA
    assert 0.77 <= shown.mean() <= 0.9


def test_means_and_areas_hold_their_level_and_power() -> None:
    """The paired bootstrap of marks from 0 to 1: its errors and the power that a dry run promises hold."""
    comparison = Comparison("mean", ARMS - 1)
    difference = power.smallest_difference(comparison, ROWS)
    assert difference is not None
    marks = GENERATOR.normal(0, power.SPREAD, (ROWS, EXPERIMENTS * (ARMS - 1)))
    draws = stats.bootstrap(lambda weights: stats.weighted_means(marks, weights), np.arange(ROWS), draws=400)
    errors = stats.standard_error(draws, ROWS).reshape(EXPERIMENTS, ARMS - 1)
    found = marks.mean(axis=0).reshape(EXPERIMENTS, ARMS - 1)
    alike = stats.holm(stats.difference_p(found, errors, ROWS)) < stats.ALPHA
    assert alike.any(axis=1).mean() <= 0.062
    differs = stats.holm(stats.difference_p(found + np.array([difference, 0, 0, 0]), errors, ROWS)) < stats.ALPHA
    assert differs[:, 0].mean() >= 0.77


@pytest.mark.parametrize(("rows", "difference", "alpha"), [(20, 0.4, 0.05), (120, 0.2, 0.0125), (300, 0.08, 0.01)])
def test_power_is_that_of_scipys_distributions(rows: int, difference: float, alpha: float) -> None:
    """The exact test's power by summing over all its outcomes, and the t test's by the noncentral t."""
    from scipy import stats as reference

    disagreement = max(0.2, difference)
    total = 0.0
    for both in range(rows + 1):
        wins = np.arange(both + 1)
        shown = stats.mcnemar(wins, both - wins) <= alpha
        chance = reference.binom.pmf(wins, both, (disagreement + difference) / (2 * disagreement))
        total += reference.binom.pmf(both, rows, disagreement) * chance[shown].sum()
    assert power.exact_power(rows, difference, disagreement, alpha) == pytest.approx(total)
    edge = reference.t.ppf(1 - alpha / 2, rows - 1)
    wanted = reference.nct.sf(edge, rows - 1, difference / 0.5 * np.sqrt(rows))
    assert power.mean_power(rows, difference, 0.5, alpha) == pytest.approx(wanted)


def test_more_rows_show_smaller_differences() -> None:
    """The rows wanted for a difference are those that show it; a smaller one wants more, and so do more arms."""
    for kind in ("right", "area", "mean"):
        comparison = Comparison(kind, 4)
        wanted = power.rows_wanted(comparison, 0.05)
        smallest = power.smallest_difference(comparison, wanted)
        assert smallest == pytest.approx(0.05, rel=0.05)
        assert power.rows_wanted(comparison, 0.1) < wanted < power.rows_wanted(Comparison(kind, 8), 0.05)


def test_a_few_rows_show_nothing() -> None:
    """With five rows no split is uneven enough, and no number of arms is too large to be asked about."""
    assert power.smallest_difference(Comparison("right", 4), 5) is None
