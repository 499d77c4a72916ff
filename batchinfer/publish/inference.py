"""The precision of many answers from verdicts on a few, by prediction-powered inference. Pure.

What reviewers said of a random sample is weighted by how likely each row was to be drawn (Horvitz and Thompson), and
corrected by the scores, which are known for all rows: by as much as scores and verdicts go together in the sample
(Angelopoulos and others, 2023; the tuning is that of PPI++). Scores may be as wrong as they like: then they help less.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from batchinfer.core.intervals import Interval, wilson
from batchinfer.errors import counted

FEWEST = 30  # verdicts that an interval is given for, unless they cover everything
PSEUDO = 0.25  # the variance of half an error: no sample without an error shows that there is none
MOST_ASKED = 1_000_000
LEAST_OPEN = 0.1  # of the variance of a verdict: scores are often too sure
LEAST_DRAWN = 4  # of each stratum, where there is room


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """A row that was drawn and judged.

    chance: how likely it was to be among the judged, above 0.
    right: from 0 to 1: the share of it that is right, or of its reviewers who say so.
    size: what it counts for: 1, or the number of its terms.
    score: the model's own, from 0 to 1.
    stratum: any name; rows of the same one were drawn with the same chance.
    """

    chance: float
    right: float
    size: float
    score: float
    stratum: str

    @property
    def weight(self) -> float:
        return self.size / self.chance


@dataclass(frozen=True, slots=True)
class Whole:
    """All rows that a sample stands for.

    rows: how many.
    size: the sum of their sizes.
    score: their mean score, weighted by size.
    """

    rows: int
    size: float
    score: float


@dataclass(frozen=True, slots=True)
class Estimated:
    """What a sample says of the whole.

    value: the share of the whole that is right.
    interval: of it, 95 %.
    verdicts: judged rows.
    worth: how many verdicts of a uniform sample, judged without scores, would say as much.
    """

    value: float
    interval: Interval
    verdicts: int
    worth: float


@dataclass(frozen=True, slots=True)
class Precision:
    """The share of the model's predictions, or of the terms in them, that is right; without what people imported.

    estimate: the best guess; None where too few verdicts count.
    low, high: where it lies with 95 %.
    verdicts: judged rows that count.
    rows: predictions that it is about, or terms.
    covered: those of the rows that samples stand for, or that reviewers gave.
    drawn: rows of the samples.
    disagreements: judged rows of which reviewers say different things; each counts for what it says on average.
    others: verdicts of reviews that were no sample: they cannot be used.
    samples: the ids of the samples.
    of: what is right or not, predictions or terms.
    """

    estimate: float | None
    low: float
    high: float
    verdicts: int
    rows: int
    covered: int
    drawn: int
    disagreements: int
    others: int
    samples: tuple[str, ...]
    of: str
    known: Estimated | None = None

    @property
    def method(self) -> str:
        """How it was found, as a word."""
        return "prediction-powered"

    def to_json(self) -> dict[str, Any]:
        """As `precision --json`, a manifest and the service have it."""
        names = (
            "estimate",
            "low",
            "high",
            "verdicts",
            "method",
            "of",
            "rows",
            "covered",
            "drawn",
            "disagreements",
            "others",
        )
        return {**{name: getattr(self, name) for name in names}, "samples": list(self.samples)}

    @property
    def problem(self) -> str | None:
        """Why there is no figure, a sentence; None where there is one."""
        if self.estimate is not None:
            return None
        if not self.rows:
            return f"it serves no {self.of} of the model"
        count = "counts" if self.verdicts == 1 else "count"
        needed = f"at least {FEWEST}" if self.rows > FEWEST else f"those on all {self.rows} {self.of} that are served"
        said = f"{counted(self.verdicts, 'verdict')} of samples {count} here, and {needed} are needed"
        if self.others:
            said += (
                f"; {counted(self.others, 'verdict')} of other reviews cannot be used, since those rows were not drawn by chance, "
                "but the worst first"
            )
        return said

    def wanted(self, limit: float) -> int | None:
        """How many verdicts more let the lower end reach a limit, as far as can be said; None where none would."""
        if self.rows and self.covered < self.rows:  # the rest is to be drawn from, too
            return verdicts_wanted(limit, replace(self.known, verdicts=0) if self.known else None, self.rows)
        return verdicts_wanted(limit, self.known, self.rows)


def estimate_precision(judged: Sequence[JudgedRow], whole: Whole) -> Estimated | None:
    """The share that is right; None where nothing was judged."""
    if not judged:
        return None
    weights = sum(row.weight for row in judged)
    scores, rights = _centred([row.score for row in judged], judged), _centred([row.right for row in judged], judged)
    slope = _slope(scores, rights, judged)
    right, score = (
        sum(row.weight * part for row, part in zip(judged, parts, strict=True)) / weights
        for parts in ([row.right for row in judged], [row.score for row in judged])
    )
    value = min(1.0, max(0.0, right + slope * (whole.score - score)))
    rests = [right - slope * score for right, score in zip(rights, scores, strict=True)]
    variance = _variance(rests, judged, weights)
    smoothed = (value * len(judged) + 0.5) / (len(judged) + 1)
    worth = smoothed * (1 - smoothed) / variance if variance > 0 else math.inf
    interval = Interval(value, value) if math.isinf(worth) else wilson(value * worth, worth)
    return Estimated(value, interval, len(judged), worth)


def _centred(values: Sequence[float], judged: Sequence[JudgedRow]) -> list[float]:
    """The values less the mean of their stratum, or of all where it has but one."""
    every = math.fsum(row.weight * value for row, value in zip(judged, values, strict=True)) / math.fsum(
        row.weight for row in judged
    )
    groups = defaultdict[str, list[float]](list)
    for row, value in zip(judged, values, strict=True):
        groups[row.stratum].append(value)
    means = {name: math.fsum(group) / len(group) if len(group) > 1 else every for name, group in groups.items()}
    return [value - means[row.stratum] for row, value in zip(judged, values, strict=True)]


def _slope(scores: Sequence[float], rights: Sequence[float], judged: Sequence[JudgedRow]) -> float:
    """How much a verdict rises with the score: the correction that leaves the least variance."""
    shares = [row.weight**2 * (1 - row.chance) for row in judged]
    squares = math.fsum(share * score * score for share, score in zip(shares, scores, strict=True))
    both = math.fsum(share * score * right for share, score, right in zip(shares, scores, rights, strict=True))
    return both / squares if squares > 0 else 0.0


def _variance(rests: Sequence[float], judged: Sequence[JudgedRow], weights: float) -> float:
    """Of the estimate: that of what the scores do not explain within the strata, with half an error more."""
    count = len(judged)
    sizes = defaultdict[str, int](int)
    for row in judged:
        sizes[row.stratum] += 1
    shares = [row.weight**2 * (1 - row.chance) for row in judged]
    own = math.fsum(
        share * rest * rest * sizes[row.stratum] / max(sizes[row.stratum] - 1, 1)
        for share, rest, row in zip(shares, rests, judged, strict=True)
    )
    return (own * count / max(count - 1, 1) + PSEUDO / count * math.fsum(shares)) / weights**2


def verdicts_wanted(limit: float, known: Estimated | None, rows: int) -> int | None:
    """How many verdicts more let the lower end reach a limit, if what is known goes on; None where none would.

    Without any verdict it is assumed that the truth is halfway between the limit and 1. rows: of the whole.
    """
    value = (1 + limit) / 2 if known is None else known.value
    have = 0 if known is None else known.verdicts
    each = 1.0 if known is None or math.isinf(known.worth) else known.worth / known.verdicts
    if value <= limit:
        return None
    low, high = max(have, FEWEST), max(have, FEWEST) * 2
    if _reaches(limit, value, low * each):
        return max(low - have, 0)
    while not _reaches(limit, value, high * each) and high < MOST_ASKED:
        high *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _reaches(limit, value, middle * each) else (middle, high)
    return max(1, min(high, rows) - have)


def _reaches(limit: float, value: float, verdicts: float) -> bool:
    return wilson(value * verdicts, verdicts).low >= limit


def allocate(rows: Sequence[int], scores: Sequence[float], count: int) -> list[int]:
    """How many rows to draw of each stratum, `count` in all, or as many as there are.

    More where the scores leave more open, and a few of each. rows: of each stratum. scores: their mean there.
    """
    left = min(count, sum(rows))
    drawn = [0] * len(rows)
    wanted = [size * math.sqrt(max(score * (1 - score), LEAST_OPEN)) for size, score in zip(rows, scores, strict=True)]
    floor = max(1, min(LEAST_DRAWN, left // max(1, 2 * len(rows))))
    for place in sorted(range(len(rows)), key=lambda place: -rows[place]):
        drawn[place] = min(rows[place], floor, left)
        left -= drawn[place]
    whole = sum(wanted)
    share = [part / whole * min(count, sum(rows)) for part in wanted]
    while left:
        place = max(
            (place for place in range(len(rows)) if drawn[place] < rows[place]),
            key=lambda place: share[place] - drawn[place],
        )
        drawn[place] += 1
        left -= 1
    return drawn
