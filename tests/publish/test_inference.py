"""Prediction-powered inference, on simulated lists whose truth is known."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from statistics import correlation, mean

import pytest

from batchinfer.core.intervals import wilson
from batchinfer.publish.inference import Estimated, JudgedRow, Whole, allocate, estimate_precision, verdicts_wanted

ROWS, BANDS = 1000, 5


@dataclass(frozen=True)
class Simulated:
    """A list with scores that are too sure of themselves, and the truth, in the order of the scores."""

    scores: list[float]
    truth: list[bool]

    @property
    def precision(self) -> float:
        return mean(self.truth)

    @property
    def whole(self) -> Whole:
        return Whole(len(self.scores), len(self.scores), mean(self.scores))


def simulated(generator: random.Random, middle: float, spread: float) -> Simulated:
    rows = []
    for _ in range(ROWS):
        odds = generator.gauss(middle, spread)
        rows.append((1 / (1 + math.exp(-1 - 1.5 * odds)), generator.random() < 1 / (1 + math.exp(-odds))))
    rows.sort()
    return Simulated([score for score, _ in rows], [right for _, right in rows])


def sampled(generator: random.Random, listed: Simulated, count: int) -> dict[int, str]:
    """Rows that are drawn as a sample is, each with its stratum."""
    size = ROWS // BANDS
    bands = [range(number * size, (number + 1) * size) for number in range(BANDS)]
    drawn = allocate([size] * BANDS, [mean(listed.scores[row] for row in band) for band in bands], count)
    return {
        row: str(number)
        for number, (band, wanted) in enumerate(zip(bands, drawn, strict=True))
        for row in generator.sample(band, wanted)
    }


def judged(listed: Simulated, *samples: dict[int, str]) -> list[JudgedRow]:
    """The verdicts on the rows of samples, drawn independently of each other."""
    rates = [
        [sum(band == str(number) for band in rows.values()) / (ROWS // BANDS) for number in range(BANDS)]
        for rows in samples
    ]
    found = []
    for row in sorted(set().union(*samples)):
        band = row * BANDS // ROWS
        chance = 1 - math.prod(1 - each[band] for each in rates)
        found.append(JudgedRow(chance, float(listed.truth[row]), 1.0, listed.scores[row], str(band)))
    return found


def known(found: Estimated | None) -> Estimated:
    assert found is not None
    return found


@pytest.mark.parametrize(("middle", "spread", "samples"), [(2.0, 3.0, 1), (3.0, 1.0, 1), (2.0, 3.0, 2)])
@pytest.mark.long
def test_500_simulated_lists(middle: float, spread: float, samples: int) -> None:
    """With 200 verdicts the interval holds the truth in 93 % of the lists, and is much shorter than that of a uniform sample."""
    generator = random.Random(0)
    held, lengths, uniform, alike = 0, list[float](), list[float](), list[float]()
    for _ in range(500):
        listed = simulated(generator, middle, spread)
        drawn = [sampled(generator, listed, 200 // samples) for _ in range(samples)]
        interval = known(estimate_precision(judged(listed, *drawn), listed.whole)).interval
        held += interval.low <= listed.precision <= interval.high
        lengths.append(interval.high - interval.low)
        plain = wilson(sum(generator.sample(listed.truth, 200)), 200)
        uniform.append(plain.high - plain.low)
        alike.append(correlation(listed.scores, [float(right) for right in listed.truth]))
    assert held >= 0.93 * 500
    assert (mean(alike) >= 0.65) == (spread > 1)
    assert mean(lengths) <= (0.8 if mean(alike) >= 0.65 else 1.0) * mean(uniform)


def test_no_sample_shows_that_there_is_no_error() -> None:
    """All right is no certainty, unless all rows were judged; without verdicts there is no figure."""
    rows = [JudgedRow(0.2, 1.0, 1.0, 0.9, str(number % 5)) for number in range(100)]
    found = known(estimate_precision(rows, Whole(500, 500, 0.9)))
    assert found.value == 1.0 == found.interval.high
    assert 0.95 < found.interval.low < 0.99
    every = [JudgedRow(1.0, float(number > 9), 1.0, 0.5, "0") for number in range(100)]
    assert known(estimate_precision(every, Whole(100, 100, 0.5))).interval.low == 0.9
    assert estimate_precision([], Whole(500, 500, 0.9)) is None


def test_useless_scores_change_nothing() -> None:
    """Where all scores are alike, the estimate is the share of right rows, each weighted by its chance and size."""
    rows = [JudgedRow(0.5, 1.0, 2.0, 0.5, "0"), JudgedRow(0.5, 0.0, 1.0, 0.5, "0"), JudgedRow(0.25, 0.5, 1.0, 0.5, "1")]
    assert known(estimate_precision(rows, Whole(10, 10, 0.5))).value == pytest.approx((4 + 2) / (4 + 2 + 4))


def test_the_number_of_verdicts_that_are_wanted() -> None:
    """So many more are just enough if they go on as those before; none are, where the estimate is below the limit."""
    found = Estimated(0.94, wilson(94, 100), 100, 150.0)
    more = verdicts_wanted(0.9, found, 10_000)
    assert more is not None
    worth = [1.5 * (100 + count) for count in (more - 1, more)]
    assert [wilson(0.94 * each, each).low >= 0.9 for each in worth] == [False, True]
    assert verdicts_wanted(0.95, found, 10_000) is None
    assert verdicts_wanted(0.9, None, 10_000) == 139
    assert verdicts_wanted(0.9, None, 50) == 50


def test_what_is_drawn_of_each_stratum() -> None:
    """All in all the number that was asked for, some of each, more where the scores leave more open, never more than there are."""
    assert allocate([100, 100, 100], [0.99, 0.5, 0.99], 60) == [17, 26, 17]
    assert allocate([3, 1000], [0.5, 0.5], 100) == [3, 97]
    assert allocate([10, 5], [0.5, 0.5], 100) == [10, 5]
    assert sum(allocate([50] * 30, [0.9] * 30, 12)) == 12
