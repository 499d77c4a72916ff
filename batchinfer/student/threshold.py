"""From which score on a student may answer: learn-then-test with fixed-sequence testing. Pure.

The best of many cut-offs looks better than it is. Here the thresholds stand in one order before any agreement is looked at,
from the strictest down, each is tested exactly, and the first that fails ends it; so the promise holds as often as it says
(Angelopoulos et al., "Learn then Test", 2021, section 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

ENOUGH = 5  # times the rows without which nothing can be shown: so many asked ones are judged by alone
STEPS = 40  # thresholds that are tested, at most
BEGIN = 3  # the strictest leaves so many times the rows without which nothing can be shown


@dataclass(frozen=True, slots=True)
class Threshold:
    """From which score on a student agrees with its teacher as often as was asked for.

    score: the least score with which it may answer.
    answered: the share of the rows with which it was found that it answers.
    agreement: how often it agreed on those.
    rows: how many it was found with.
    """

    score: float
    answered: float
    agreement: float
    rows: int


def least_rows(agree: float, confidence: float) -> int:
    """How many rows, all agreed on, show that much: with fewer nothing can be promised."""
    return math.ceil(math.log(1 - confidence) / math.log(agree))


def judging_rows(asked: npt.NDArray[np.bool_], agree: float, confidence: float) -> npt.NDArray[np.bool_]:
    """Which of the rows that were held out a threshold is found with. asked: those that live clients asked for.

    Those alone, once there are enough: they are what further clients will ask, and the list is not. Till then all.
    """
    enough = asked.sum() >= ENOUGH * least_rows(agree, confidence)
    return asked if enough else np.ones_like(asked)


def find_threshold(
    scores: npt.NDArray[np.float64], agreed: npt.NDArray[np.bool_], agree: float, confidence: float
) -> Threshold | None:
    """None if nothing can be promised. scores: of rows that it did not learn from. agreed: whether the teacher says so too."""
    order = np.argsort(-scores, kind="stable")
    sorted_scores, right = scores[order], np.cumsum(agreed[order])
    counts = _counts(sorted_scores, least_rows(agree, confidence))
    by_chance = _tail(right[counts - 1], counts, agree)  # of as many agreed on, did it agree less often
    held = np.argmax(np.append(by_chance > 1 - confidence, True))
    if held == 0:
        return None
    found = int(counts[held - 1])
    return Threshold(float(sorted_scores[found - 1]), found / len(scores), float(right[found - 1] / found), len(scores))


def _tail(right: npt.NDArray[Any], counts: npt.NDArray[np.int64], agree: float) -> npt.NDArray[np.float64]:
    """The probability of at least so many right ones. From SciPy's special functions: its distributions take a second to import."""
    tail = special.bdtrc(np.maximum(right - 1, 0), counts, agree)
    return np.asarray(np.where(right < 1, 1.0, tail), dtype=float)


def _counts(descending: npt.NDArray[np.float64], least: int) -> npt.NDArray[np.int64]:
    """How many rows each threshold leaves, from the strictest on. Rows of one score stand or fall together."""
    ends = np.flatnonzero(np.append(descending[1:] != descending[:-1], True)) + 1
    wanted = np.linspace(min(BEGIN * least, len(descending)), len(descending), STEPS)
    places = np.searchsorted(ends, np.unique(wanted.astype(int)))
    counts = np.unique(ends[places[places < len(ends)]])
    return counts[counts >= least]
