"""How alike two say the same rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from batchinfer.student.likeness import likeness, only


def of(first: list[float]) -> np.ndarray:
    """Scores of two choices, by those of the first."""
    return np.stack([np.array(first), 1 - np.array(first)], axis=1)


def test_two_that_are_one() -> None:
    """Nothing is between them but what scores leave to doubt."""
    scores = of([0.9, 0.6, 0.2, 0.4])
    found = likeness(scores, scores)
    assert (found.agreement, found.brier) == (1, 0)
    assert found.spearman == pytest.approx(1)
    assert found.ece == pytest.approx(1 - scores.max(1).mean())


def test_two_that_differ() -> None:
    """Each figure by hand; of answers alone there is no doubt."""
    found = likeness(of([0.9, 0.6, 0.2, 0.4]), only(np.array([0, 1, 1, 1]), 2))
    assert found.agreement == 0.75
    assert found.brier == pytest.approx(2 * np.mean([0.01, 0.36, 0.04, 0.16]))
    assert found.ece == pytest.approx(np.mean([0.1, 0.6, 0.2, 0.4]))
    assert likeness(of([0.5, 0.5]), of([0.1, 0.9])).spearman is None


def test_choices_on_a_scale_are_ranked_by_the_number_expected() -> None:
    """Not by the first choice's score."""
    one, other = np.array([[0.2, 0.8, 0], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]]), only(np.array([0, 2, 1]), 3)
    assert likeness(one, other, [0, 0.5, 1]).spearman == pytest.approx(1)
    assert likeness(one, other, [1, 0.5, 0]).spearman == pytest.approx(1)
    assert likeness(one, other, [1, 0, 0]).spearman == likeness(one, other).spearman != pytest.approx(1)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=40))
def test_rank_correlation_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    """With ties, too."""
    one, other = (np.array(values) / 5 for values in zip(*pairs, strict=True))
    found = likeness(of(list(one)), of(list(other))).spearman
    if found is None:
        assert len(set(one)) == 1 or len(set(other)) == 1
    else:
        assert found == pytest.approx(stats.spearmanr(one, other)[0])
