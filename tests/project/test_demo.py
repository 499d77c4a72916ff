"""The demo's own figures: the area under the ROC curve, and the sentences that it shows."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

DEMO: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[2] / "jobs/sentiment/demo.py"))
area_under_curve = DEMO["area_under_curve"]
Judged = DEMO["Judged"]
spread = DEMO["spread"]

# Few distinct scores, so that ties are common.
rated = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.booleans()), min_size=2, max_size=40)


def pairs_won(scores: list[float], positive: list[bool]) -> float:
    """The same area, by comparing every positive with every negative one."""
    ups = [score for score, up in zip(scores, positive, strict=True) if up]
    downs = [score for score, up in zip(scores, positive, strict=True) if not up]
    won = sum((up > down) + (up == down) / 2 for up in ups for down in downs)
    return won / (len(ups) * len(downs))


@given(rated.filter(lambda rows: len({up for _, up in rows}) == 2))
def test_area_is_the_share_of_pairs_in_the_right_order(rows: list[tuple[float, bool]]) -> None:
    """The rank formula gives what counting all pairs gives, ties included."""
    scores, positive = [score for score, _ in rows], [up for _, up in rows]
    assert area_under_curve(scores, positive) == pytest.approx(pairs_won(scores, positive))


def test_area_of_a_perfect_and_of_a_reversed_order() -> None:
    """A perfect order gives 1, its reverse 0, all ties one half."""
    assert area_under_curve([0.1, 0.2, 0.8, 0.9], [False, False, True, True]) == 1.0
    assert area_under_curve([0.9, 0.8, 0.2, 0.1], [False, False, True, True]) == 0.0
    assert area_under_curve([0.5, 0.5, 0.5], [False, True, True]) == 0.5


def test_area_needs_both_kinds() -> None:
    """With ratings of one sign only there is nothing to compare."""
    with pytest.raises(ValueError, match="at least one positive and one negative"):
        area_under_curve([0.1, 0.2], [True, True])


def test_the_sentences_shown_are_spread() -> None:
    """Those shown come from all domains alike, from the highest score to the lowest, none twice."""
    judged = [
        Judged(f"{domain} {number}", domain, "Positive", number / 50, 1.0)
        for domain in ("tweets", "film", "product", "news")
        for number in range(50)
    ]
    shown = spread(judged, 12)
    assert len({row.sentence for row in shown}) == 12
    assert sorted(row.domain for row in shown) == sorted(["tweets", "film", "product", "news"] * 3)
    assert [row.score for row in shown] == sorted((row.score for row in shown), reverse=True)
    assert shown[0].score > 0.9
    assert shown[-1].score < 0.1
