"""What so many rows can show, said before any is asked. Pure: figures in, figures out.

Of a comparison that nobody has made yet, three things are assumed; they are said with what is derived from them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from batchinfer.core.arrays import Floats
from batchinfer.evaluate.stats import ALPHA, binomial

POWER = 0.8
DISAGREEMENT = 0.2  # the share of rows of which two prompts answer one rightly and the other not
AREA, AREAS_ALIKE = 0.8, 0.5  # an area under the ROC curve, and how far two prompts' areas go together
SPREAD = 0.3  # of the differences of a mark from 0 to 1, such as F1
TINY_SHARE = 1e-3
MOST_ROWS = 10_000_000


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is to be compared.

    kind: right (or wrong), an area under the ROC curve, or a mean of marks.
    arms: that are compared with the baseline.
    positive: share of positive rows, for an area.
    """

    kind: Literal["right", "area", "mean"]
    arms: int
    positive: float = 0.5

    @property
    def alpha(self) -> float:
        """What one comparison may take, so that Holm's correction lets it pass in any case."""
        return ALPHA / max(self.arms, 1)

    @property
    def assumption(self) -> str:
        """What is assumed, as the end of a sentence."""
        if self.kind == "right":
            return f"if two arms differ in being right on {DISAGREEMENT:.0%} of the rows"
        if self.kind == "area":
            return f"if the larger area is {AREA:g} and the areas correlate by {AREAS_ALIKE:g}"
        return f"if the differences have a standard deviation of {SPREAD:g}"

    def power(self, rows: int, difference: float) -> float:
        """The probability that a difference of this size is shown."""
        if self.kind == "right":
            return exact_power(rows, difference, max(DISAGREEMENT, difference), self.alpha)
        spread = area_spread(self.positive, difference) if self.kind == "area" else SPREAD
        return mean_power(rows, difference, spread, self.alpha)


def exact_power(rows: int, difference: float, disagreement: float, alpha: float) -> float:
    """Of McNemar's exact test: for each number of rows on which two arms disagree, how often the split is uneven enough."""
    both = np.arange(rows + 1)
    most = np.floor(special.bdtrik(alpha / 2, np.maximum(both, 1), 0.5)) + 1  # losses at most, to be shown
    while (too_many := binomial(most, both, 0.5) > alpha / 2).any():
        most = np.where(too_many, most - 1, most)
    wins = min(1.0, (disagreement + difference) / (2 * disagreement))
    shown = binomial(most, both, 1 - wins) + binomial(most, both, wins)
    return float(np.sum(_binomial_density(both, rows, min(1.0, disagreement)) * np.where(most < 0, 0.0, shown)))


def _binomial_density(count: NDArray[np.int64], tries: int, chance: float) -> Floats:
    """The probability of so many successes."""
    ways = special.gammaln(tries + 1) - special.gammaln(count + 1) - special.gammaln(tries - count + 1)
    return np.asarray(
        np.exp(ways + special.xlogy(count, chance) + special.xlog1py(tries - count, -chance)), dtype=float
    )


def mean_power(rows: int, difference: float, spread: float, alpha: float) -> float:
    """Of a t test on paired differences with this standard deviation."""
    free, shift = max(rows - 1, 1), difference / spread * math.sqrt(rows)
    edge = float(special.stdtrit(free, 1 - alpha / 2))
    return float(1 - special.nctdtr(free, shift, edge))


def area_spread(positive: float, difference: float) -> float:
    """The standard error of a difference of two areas, times the root of the rows (Hanley and McNeil 1982, 1983).

    positive: the share of positive rows. difference: by how much the smaller area is below AREA.
    """
    ups, downs = max(positive, TINY_SHARE), max(1 - positive, TINY_SHARE)
    larger, smaller = (_area_variance(area, ups, downs) for area in (AREA, max(AREA - difference, 0.0)))
    return math.sqrt(larger + smaller - 2 * AREAS_ALIKE * math.sqrt(larger * smaller))


def _area_variance(area: float, ups: float, downs: float) -> float:
    """Of one area, times the rows."""
    return (2 * area**2 / (1 + area) - area**2) / ups + (area / (2 - area) - area**2) / downs


def smallest_difference(comparison: Comparison, rows: int) -> float | None:
    """The smallest difference that so many rows show with 80 %; None where they show none at all."""
    if rows < 1 or comparison.power(rows, 1.0) < POWER:
        return None
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if comparison.power(rows, middle) >= POWER else (middle, high)
    return high


def rows_wanted(comparison: Comparison, difference: float) -> int:
    """How many rows show a difference of this size with 80 %."""
    enough = partial(_shows, comparison, difference)
    high = 2
    while not enough(high) and high < MOST_ROWS:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _shows(comparison: Comparison, difference: float, rows: int) -> bool:
    return comparison.power(rows, difference) >= POWER
