"""Statistics of paired comparisons and of shares. Pure: arrays in, figures out.

Rows that come of one source row are no independent evidence: they form a unit, and units are what is drawn and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from batchinfer.core.arrays import Floats
from batchinfer.core.intervals import Interval

Statistic = Callable[[Floats], Floats]
"""From (draws, rows) weights to a figure, or a row of figures, for each draw."""

ALPHA = 0.05  # of all comparisons together; intervals hold with 1 - ALPHA
DRAWS = 2000  # of a bootstrap
MOST_AT_ONCE = 4_000_000  # weights that are held at once
TINY = 1e-12  # differences of figures below it are rounding


@dataclass(frozen=True, slots=True)
class Bin:
    """Some rows with similar scores.

    score: their mean score.
    right: the share of them that is right.
    rows: how many there are.
    """

    score: float
    right: float
    rows: int


def mcnemar(wins: ArrayLike, losses: ArrayLike) -> Floats:
    """The exact two-sided probability of so uneven a split, or a more uneven one, were both equally likely."""
    fewer, both = np.minimum(wins, losses), np.add(wins, losses)
    return np.minimum(1.0, 2 * binomial(fewer, both, 0.5))


def binomial(most: ArrayLike, tries: ArrayLike, chance: ArrayLike) -> Floats:
    """The probability that at most so many of some tries succeed.

    From SciPy's special functions: to import its distributions takes a second.
    """
    below = special.bdtr(np.clip(most, 0, tries), tries, chance)
    return np.asarray(np.where(np.less(most, 0), 0.0, below), dtype=float)


def holm(p: ArrayLike) -> Floats:
    """Holm's correction along the last axis: each below ALPHA is shown, whatever the others came to."""
    given = np.asarray(p, dtype=float)
    count = given.shape[-1]
    order = np.argsort(given, axis=-1, kind="stable")
    sorted_p = np.take_along_axis(given, order, -1) * (count - np.arange(count))
    corrected = np.minimum(1.0, np.maximum.accumulate(sorted_p, axis=-1))
    found: Floats = np.empty_like(corrected)
    np.put_along_axis(found, order, corrected, -1)
    return found


def unit_numbers(units: Sequence[bytes | str | int]) -> NDArray[np.int64]:
    """Numbers from 0 for the units that rows belong to, in the order in which they first appear."""
    known: dict[bytes | str | int, int] = {}
    return np.array([known.setdefault(unit, len(known)) for unit in units], dtype=np.int64)


def bootstrap(statistic: Statistic, units: NDArray[np.int64], draws: int = DRAWS, seed: int = 0) -> Floats:
    """The statistic of so many draws of units with replacement: (draws, …). units: that of each row, numbered from 0."""
    generator = np.random.default_rng(seed)
    count = int(units.max()) + 1
    chunk = max(1, MOST_AT_ONCE // len(units))
    found = []
    for start in range(0, draws, chunk):
        times = generator.multinomial(count, np.full(count, 1 / count), size=min(chunk, draws - start))
        found.append(statistic(times[:, units].astype(float)))
    return np.concatenate(found)


def weighted_means(values: Floats, weights: Floats) -> Floats:
    """The mean of each column of (rows, columns) for each of (draws, rows) weights: (draws, columns)."""
    return np.asarray(weights @ values / weights.sum(axis=1, keepdims=True), dtype=float)


def area(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """The area under the ROC curve: how often a positive row has the higher score of the two; a tie counts one half.

    NaN where one of the kinds is missing.
    """
    return float(weighted_areas(scores, positive, np.ones((1, len(scores))))[0])


def weighted_areas(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """The same for each of (draws, rows) weights: (draws,)."""
    _, places = np.unique(scores, return_inverse=True)
    order = np.argsort(places, kind="stable")
    ends = np.searchsorted(places[order], places[order], side="right") - 1
    starts = np.searchsorted(places[order], places[order], side="left")
    up = np.where(positive, weights, 0.0)[:, order]
    down = np.where(positive, 0.0, weights)[:, order]
    below = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(down, axis=1)], axis=1)
    beaten = (below[:, starts] + below[:, ends + 1]) / 2
    pairs = up.sum(axis=1) * down.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((up * beaten).sum(axis=1) / pairs, dtype=float)


def placements(scores: Floats, positive: NDArray[np.bool_]) -> Floats:
    """For each row the share of the rows of the other kind that it is on the right side of: their mean is the area."""
    found = np.empty(len(scores))
    for kind in (True, False):
        own, others = positive == kind, np.sort(scores[positive != kind])
        side = np.searchsorted(others, scores[own], "left") + np.searchsorted(others, scores[own], "right")
        share = side / (2 * max(len(others), 1))
        found[own] = share if kind else 1 - share
    return found


def percentiles(draws: Floats) -> Interval:
    """The interval that a bootstrap's draws give; draws that are no number are left out."""
    usable = draws[np.isfinite(draws)]
    if not len(usable):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(usable, [ALPHA / 2, 1 - ALPHA / 2])
    return Interval(float(low), float(high))


def standard_error(draws: Floats, units: int) -> Floats:
    """Of a figure, from a bootstrap's draws of it, (draws, …); widened for few units, from which a bootstrap varies too little."""
    return np.asarray(np.nanstd(draws, axis=0, ddof=1) * np.sqrt(units / max(units - 1, 1)), dtype=float)


def difference_p(difference: ArrayLike, error: ArrayLike, units: int) -> Floats:
    """The two-sided probability of a difference of this standard error, or a larger one, if there were none."""
    size, spread = np.abs(np.asarray(difference, dtype=float)), np.asarray(error, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = 2 * special.stdtr(max(units - 1, 1), -size / spread)
    # all units differ by the same: as good as a coin, tossed for each
    alike = np.where(size < TINY, 1.0, 2.0 ** (1 - units))
    return np.asarray(np.where(spread < TINY, alike, p), dtype=float)


def around(difference: float, error: float, units: int) -> Interval:
    """The interval of a difference."""
    half = float(special.stdtrit(max(units - 1, 1), 1 - ALPHA / 2)) * error
    return Interval(difference - half, difference + half)


def reliability(scores: Floats, right: NDArray[np.bool_], bins: int = 10) -> list[Bin]:
    """The rows in bins of equal width by their score from 0 to 1, those without rows left out."""
    number = np.minimum((scores * bins).astype(int), bins - 1)
    return [
        Bin(float(scores[held].mean()), float(right[held].mean()), int(held.sum()))
        for place in range(bins)
        if (held := number == place).any()
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error: how far scores and shares of right answers are apart, on average over the rows."""
    return sum(each.rows * abs(each.score - each.right) for each in bins) / sum(each.rows for each in bins)


def best_cut_off(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """The score from which on to say positive, so that most rows are right: the middle of the gap, the lowest of several."""
    order = np.argsort(scores, kind="stable")
    ordered, up = scores[order], positive[order]
    right = np.concatenate([[up.sum()], up.sum() + np.cumsum(np.where(up, -1, 1))])  # said positive from this row on
    gaps = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])
    best = int(np.argmax(np.where(gaps, right, -1)))
    edges = np.concatenate([[min(0.0, ordered[0])], ordered, [max(1.0, ordered[-1])]])
    return float((edges[best] + edges[best + 1]) / 2)
