"""The interval of a share, against scipy's."""

from __future__ import annotations

import pytest
from scipy import stats as reference

from batchinfer.core.intervals import Interval, wilson


@pytest.mark.parametrize(("right", "rows"), [(0, 10), (7, 10), (50, 120), (120, 120)])
def test_wilson_is_scipys(right: int, rows: int) -> None:
    """The interval of a share is that of scipy's binomial test."""
    wanted = reference.binomtest(right, rows).proportion_ci(method="wilson")
    found = wilson(right, rows)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_wilson_of_nothing_says_nothing() -> None:
    """Without rows any share is possible."""
    assert wilson(0, 0) == Interval(0.0, 1.0)
