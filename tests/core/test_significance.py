"""Whether differences of shares are more than chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from batchinfer.core.significance import normal_p, shares_p, shown_together
from batchinfer.evaluate.stats import holm


def test_shares_are_tested_as_scipy_does() -> None:
    """The square of the statistic is that of chi-square without correction, and so is its probability."""
    table = [[30, 70], [45, 55]]
    assert shares_p(30, 100, 45, 100) == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue)


def test_shares_that_cannot_differ_are_alike() -> None:
    """Nothing is shown where a side has no rows, or where all rows of both sides are of one kind."""
    assert shares_p(0, 0, 3, 9) == 1
    assert shares_p(9, 9, 3, 3) == 1
    assert normal_p(0.5, 0) == 0


def test_holm_is_that_of_the_statistics() -> None:
    """Which tests are shown is what the corrected probabilities say."""
    generator = np.random.default_rng(3)
    for _ in range(200):
        p = list(generator.random(6) ** 4)
        assert shown_together(p) == list(holm(p) <= 0.05)
    assert shown_together([]) == []
