"""From which score on a student may answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from batchinfer.student.threshold import ENOUGH, find_threshold, judging_rows, least_rows

AGREE = CONFIDENCE = 0.9
Chance = Callable[[np.ndarray], np.ndarray]

# How often a student agrees, by a number from 0 to 1 that its score grows with.
STUDENTS: dict[str, Chance] = {
    "good": lambda x: np.clip(0.75 + 0.3 * x, 0, 1),
    "fair": lambda x: 0.5 + 0.5 * x,
    "one that is as good as asked for, everywhere": lambda x: np.full(len(x), AGREE),
}


@pytest.mark.parametrize("chance", STUDENTS.values(), ids=STUDENTS.keys())
def test_the_promise_holds(chance: Chance) -> None:
    """Of 1,000 splits, at most 12 % have a threshold above which 10,000 further rows agree less often than promised."""
    missed = 0
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        scores = rng.random(500)
        found = find_threshold(scores, rng.random(500) < chance(scores), AGREE, CONFIDENCE)
        if found is not None:
            further = rng.random(10_000)
            answered = further[further >= found.score]
            missed += bool((rng.random(len(answered)) < chance(answered)).mean() < AGREE)
    assert missed <= 120


def test_the_promise_holds_for_what_clients_ask() -> None:
    """Of 200 splits whose live queries it agrees on less often than on the list, at most 15 % break it, where answered ones judge.

    Judged by the list, nearly all would.
    """
    missed = {"asked": 0, "list": 0}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        asked, scores = np.arange(900) < 400, rng.random(900)
        agreed = rng.random(900) < np.where(asked, shifted(scores), STUDENTS["good"](scores))
        further = rng.random(10_000)
        for name, rows in (("asked", judging_rows(asked, AGREE, CONFIDENCE)), ("list", ~asked)):
            found = find_threshold(scores[rows], agreed[rows], AGREE, CONFIDENCE)
            if found is not None:
                answered = further[further >= found.score]
                missed[name] += bool((rng.random(len(answered)) < shifted(answered)).mean() < AGREE)
    assert missed["asked"] <= 30
    assert missed["list"] > 150


def shifted(x: np.ndarray) -> np.ndarray:
    """How often it agrees on what clients ask."""
    return np.clip(0.55 + 0.45 * x, 0, 1)


def test_which_rows_judge() -> None:
    """What clients asked for alone, once that is enough; till then the list's rows, too."""
    enough = ENOUGH * least_rows(AGREE, CONFIDENCE)
    for count, alone in ((0, False), (enough - 1, False), (enough, True)):
        asked = np.arange(1000) < count
        assert judging_rows(asked, AGREE, CONFIDENCE).sum() == (count if alone else 1000)


def test_what_can_be_shown_at_all() -> None:
    """With fewer rows than that nothing is promised, however many agree; with a few more all are answered."""
    least = least_rows(AGREE, CONFIDENCE)
    assert 1 - AGREE**least >= CONFIDENCE > 1 - AGREE ** (least - 1)
    for rows, answers in ((least - 1, False), (least, True)):
        found = find_threshold(np.linspace(0, 1, rows), np.ones(rows, bool), AGREE, CONFIDENCE)
        assert (found is not None) is answers
    assert found is not None
    assert (found.score, found.answered, found.agreement, found.rows) == (0, 1, 1, least)


def test_rows_of_one_score_stand_or_fall_together() -> None:
    """A threshold does not cut through them."""
    scores = np.repeat([0.9, 0.6], 100)
    agreed = np.concatenate([np.ones(100, bool), np.arange(100) % 2 == 0])
    found = find_threshold(scores, agreed, AGREE, CONFIDENCE)
    assert found is not None
    assert (found.score, found.answered) == (0.9, 0.5)


def test_a_student_that_agrees_too_seldom_gets_none() -> None:
    """Nowhere often enough; or nobody was asked."""
    rng = np.random.default_rng(1)
    assert find_threshold(rng.random(1000), rng.random(1000) < 0.7, AGREE, CONFIDENCE) is None
    assert find_threshold(np.empty(0), np.empty(0, bool), AGREE, CONFIDENCE) is None
