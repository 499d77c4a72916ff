"""The interval of a share. Pure, and without SciPy: the gate needs it wherever versions are published."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a figure lies with 95 %.

    low, high: its ends.
    """

    low: float
    high: float


def wilson(right: float, rows: float) -> Interval:
    """The interval of a share, by Wilson's score. rows: may be an effective number; 0 of them say nothing."""
    if rows <= 0:
        return Interval(0.0, 1.0)
    share, widened = right / rows, 1 + Z * Z / rows
    middle = (share + Z * Z / (2 * rows)) / widened
    half = Z / widened * math.sqrt(max(0.0, share * (1 - share) / rows) + Z * Z / (4 * rows * rows))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))
