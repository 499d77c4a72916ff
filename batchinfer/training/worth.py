"""What held-out rows say of a model: how often it is right, how well it orders rows, how likely it finds right answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from batchinfer.training.records import HeldRow, RowScore


@dataclass(frozen=True, slots=True)
class Worth:
    """Of a model on held-out rows.

    rows: how many there are.
    loss: mean of minus the log-probability of the right answer, in nats; with choices of it among them.
    accuracy: share of rows whose likeliest choice is the right one; without choices, that it would write as they should be.
    area: under the ROC curve of the positive choice's score; None where there are not two, or one alone is right.
    """

    rows: int
    loss: float
    accuracy: float
    area: float | None

    def to_json(self) -> dict[str, float | None]:
        return asdict(self)


def worth_of(rows: Sequence[HeldRow], scores: Sequence[RowScore], positive: int | None) -> Worth:
    """positive: the place of the choice whose score the area is about; None for none."""
    right = np.array([row.right for row in rows])
    if len(rows[0].candidates) == 1:
        said = np.array([score.logprobs[0] for score in scores])
        return Worth(len(rows), float(-said.mean()), float(np.mean([score.greedy for score in scores])), None)
    logprobs = np.array([np.divide(score.logprobs, row.lengths) for score, row in zip(scores, rows, strict=True)])
    odds = np.exp(logprobs - logprobs.max(1, keepdims=True))
    shares = odds / odds.sum(1, keepdims=True)
    loss = -np.log(np.clip(shares[np.arange(len(rows)), right], 1e-300, None)).mean()
    area = None if positive is None else _area(shares[:, positive], right == positive)
    return Worth(len(rows), float(loss), float((shares.argmax(1) == right).mean()), area)


def _area(scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float | None:
    """The share of pairs of a positive and another row that the scores order rightly; ties count half."""
    ones = int(positive.sum())
    others = len(positive) - ones
    if not ones or not others:
        return None
    ranks = stats.rankdata(scores)
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * others))
