"""The statistics, against closed forms, scipy's own functions, and counting by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from batchinfer.evaluate import stats

GENERATOR = np.random.default_rng(7)


def test_mcnemar_is_the_binomial_test() -> None:
    """For each split of up to 30 rows the probability is that of scipy's exact two-sided test of one half."""
    for wins, losses in itertools.product(range(16), range(16)):
        wanted = reference.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
        assert float(stats.mcnemar(wins, losses)) == pytest.approx(wanted)


def test_holm_is_the_textbooks() -> None:
    """Holm's own steps: the smallest times four, the next times three, never below the one before, at most 1."""
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([[0.6, 0.5], [0.01, 0.5]]) == pytest.approx(np.array([[1.0, 1.0], [0.02, 0.5]]))


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.9]), st.booleans()), min_size=2, max_size=30))
def test_area_is_the_share_of_pairs(rows: list[tuple[float, bool]]) -> None:
    """The area is what comparing each positive row with each negative one gives, ties half; so is the mean placement."""
    scores, positive = np.array([score for score, _ in rows]), np.array([up for _, up in rows])
    found = stats.area(scores, positive)
    if positive.all() or not positive.any():
        assert np.isnan(found)
        return
    pairs = [(up > down) + (up == down) / 2 for up in scores[positive] for down in scores[~positive]]
    assert found == pytest.approx(np.mean(pairs))
    placed = stats.placements(scores, positive)
    assert (placed[positive].mean(), placed[~positive].mean()) == pytest.approx((found, found))


def test_a_weight_stands_for_repetitions() -> None:
    """Areas and means with weights are those of the rows repeated so often."""
    scores, positive = GENERATOR.random(20).round(1), GENERATOR.random(20) < 0.5
    weights = GENERATOR.integers(1, 4, (5, 20))
    areas = stats.weighted_areas(scores, positive, weights.astype(float))
    means = stats.weighted_means(scores[:, None], weights.astype(float))[:, 0]
    for times, area, mean in zip(weights, areas, means, strict=True):
        rows = np.repeat(np.arange(20), times)
        assert area == pytest.approx(stats.area(scores[rows], positive[rows]))
        assert mean == pytest.approx(scores[rows].mean())


def test_a_failed_row_loses_each_comparison() -> None:
    """A row that is given an endless score on the wrong side counts as ranked last."""
    scores = np.array([-np.inf, 0.8, 0.1, np.inf])
    assert stats.area(scores, np.array([True, True, False, False])) == pytest.approx(0.25)


def test_the_bootstraps_error_is_that_of_a_mean() -> None:
    """Over draws of rows the standard error of a mean is the known one, and the paired test is the t test."""
    values = GENERATOR.normal(0.3, 1, 80)
    draws = stats.bootstrap(lambda weights: stats.weighted_means(values[:, None], weights), np.arange(80), draws=20_000)
    error = stats.standard_error(draws, 80)[0]
    assert error == pytest.approx(reference.sem(values), rel=0.03)
    exact = reference.ttest_1samp(values, 0)
    assert stats.difference_p(values.mean(), reference.sem(values), 80) == pytest.approx(exact.pvalue)
    wanted = exact.confidence_interval()
    found = stats.around(values.mean(), reference.sem(values), 80)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_the_bootstraps_error_of_an_area_is_delongs() -> None:
    """The error of a difference of two areas on the same rows is what DeLong's placements give."""
    positive = np.arange(200) < 90
    truth = np.where(positive, 1.0, 0.0)
    one, other = (truth + GENERATOR.normal(0, 1, 200) for _ in range(2))
    difference = stats.placements(one, positive) - stats.placements(other, positive)
    delong = np.sqrt(difference[positive].var(ddof=1) / 90 + difference[~positive].var(ddof=1) / 110)
    draws = stats.bootstrap(
        lambda weights: stats.weighted_areas(one, positive, weights) - stats.weighted_areas(other, positive, weights),
        np.arange(200),
    )
    assert stats.standard_error(draws, 200) == pytest.approx(delong, rel=0.08)


def test_rows_of_one_unit_are_drawn_together() -> None:
    """Rows repeated eight times tell no more than once, if they are said to be of one source."""
    values = np.repeat(GENERATOR.normal(0, 1, 50), 8)
    units = stats.unit_numbers([str(number // 8) for number in range(400)])
    assert units.max() == 49

    def error(rows: np.ndarray) -> float:
        draws = stats.bootstrap(lambda weights: stats.weighted_means(values[:, None], weights), rows)
        return float(stats.standard_error(draws, int(rows.max()) + 1)[0])

    assert error(units) == pytest.approx(error(np.arange(400)) * np.sqrt(8), rel=0.1)


def test_differences_without_spread() -> None:
    """No difference anywhere is no evidence; the same one everywhere is a coin that fell alike for each unit."""
    assert stats.difference_p([0.0, 0.2], [0.0, 0.0], 10) == pytest.approx([1.0, 2.0**-9])


def test_calibration_by_hand() -> None:
    """Two bins, one a tenth too sure and one right, weighed by their rows."""
    scores = np.array([0.9] * 10 + [0.55] * 20)
    right = np.array([True] * 8 + [False] * 2 + [True] * 11 + [False] * 9)
    bins = stats.reliability(scores, right)
    assert [each.rows for each in bins] == [20, 10]
    assert stats.calibration_error(bins) == pytest.approx(0.1 / 3)


def test_the_best_cut_off_is_in_the_widest_gap() -> None:
    """Where the order is right and the cut-off of one half is not, the best one makes all rows right."""
    scores, positive = np.array([0.6, 0.7, 0.8, 0.9]), np.array([False, False, True, True])
    assert stats.best_cut_off(scores, positive) == pytest.approx(0.75)
    assert stats.best_cut_off(scores, ~positive & False) > 0.9  # nothing is positive: never say so
    assert stats.best_cut_off(scores, positive | True) < 0.6
