"""How alike two say the same rows: a student and its teacher, or either of them and people. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from batchinfer.core.arrays import Floats

BINS = 10  # of a calibration error


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike two say the same rows.

    agreement: share of the rows of which both find the same choice likeliest.
    spearman: rank correlation of their scores of the first choice, or of the numbers that they expect where choices are on
        a scale; None where one of them does not vary.
    brier: mean square of the difference of scores, all choices together.
    ece: how far the first's scores of its likeliest choices are off the share of rows on which the other says so too,
        on average over ten groups of such scores.
    """

    agreement: float
    spearman: float | None
    brier: float
    ece: float

    def to_json(self) -> dict[str, float | None]:
        return asdict(self)


def likeness(one: Floats, other: Floats, scale: Sequence[float] | None = None) -> Likeness:
    """Of at least one row. one, other: (rows, choices), scores that add up to 1. scale: the place of each choice, if they have one."""
    numbers = [said[:, 0] if scale is None else said @ np.array(scale) for said in (one, other)]
    alike, sure = one.argmax(1) == other.argmax(1), one.max(1)
    return Likeness(
        float(alike.mean()),
        _rank_correlation(*numbers),
        float(((one - other) ** 2).sum(1).mean()),
        _calibration_error(sure, alike),
    )


def only(choices: npt.NDArray[np.intp], count: int) -> Floats:
    """Scores that have one choice alone in each row. choices: their numbers. count: how many there are."""
    scores: Floats = np.eye(count)[choices]
    return scores


def _rank_correlation(one: Floats, other: Floats) -> float | None:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def _ranks(values: Floats) -> Floats:
    """From the lowest on; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[place]
    return ranks


def _calibration_error(scores: Floats, right: npt.NDArray[np.bool_]) -> float:
    groups = np.array_split(np.argsort(scores, kind="stable"), min(BINS, len(scores)))
    return float(sum(abs(scores[group].mean() - right[group].mean()) * len(group) for group in groups) / len(scores))
