"""Is a share other than another by more than chance? Pure, and without SciPy: the gate needs it wherever versions are published."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from batchinfer.core.intervals import CONFIDENCE

NORMAL = NormalDist()


def shares_p(part: int, whole: int, other_part: int, other_whole: int) -> float:
    """The two-sided probability of two shares so far apart, or farther, if both were of one kind; 1 where one has no rows.

    By the normal approximation with a common share: for parts of about fifty rows and more.
    """
    if not whole or not other_whole:
        return 1.0
    common = (part + other_part) / (whole + other_whole)
    error = math.sqrt(common * (1 - common) * (1 / whole + 1 / other_whole))
    return normal_p(part / whole - other_part / other_whole, error)


def normal_p(difference: float, error: float) -> float:
    """The two-sided probability of a difference of this standard error, or a larger one, if there were none."""
    if error == 0:
        return 0.0 if difference else 1.0
    return 2 * (1 - NORMAL.cdf(abs(difference) / error))


def shown_together(p: Sequence[float]) -> list[bool]:
    """Which of several differences are shown, by Holm's correction: any of them wrongly in at most 5 % of cases."""
    shown = [False] * len(p)
    for rank, place in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        if p[place] > (1 - CONFIDENCE) / (len(p) - rank):
            break
        shown[place] = True
    return shown
