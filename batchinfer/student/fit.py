"""Fits the weights of a linear student to a teacher's scores: soft cross-entropy, L2 chosen by cross-validation. Pure.

Numeric scores say more than the choice that they round to: a text that the teacher was unsure of pulls neither way.

Choices on a scale share one column of weights, which counts for each choice by its place there:

    logit of a choice = place * (sum of the weights of the text's columns) + bias of the choice

Of a text's scores the slope of these weights has one number alone: the place that the teacher expects (Anderson's stereotype
model, "Regression and ordered categorical variables", 1984, with places that are given).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, sparse
from threadpoolctl import threadpool_limits

from batchinfer.core.arrays import Floats
from batchinfer.student.features import Features
from batchinfer.student.student import PAIR

Matrix = Any  # (texts, columns): sparse, of columns; or an array, of dimensions
Places = npt.NDArray[np.float32] | None  # (1, choices), if they share weights
PENALTIES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)  # from the simplest student on
FOLDS = 3
MOST_CHOOSING = 20_000  # rows that penalties are compared on
STEPS = 100  # of L-BFGS, at most
MOST_LOGIT = 30.0


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was learned.

    weights: of each choice (of the first alone where there are two) and column, rounded to 16 bits.
    bias: of each of those choices.
    penalty: the L2 that was chosen.
    """

    weights: npt.NDArray[np.float32]
    bias: Floats
    penalty: float


def matrix(features: Features, texts: Sequence[str]) -> sparse.csr_matrix:
    """Of texts and columns, as the scorer weighs them: words and pieces count by the square root of their number."""
    indices: list[npt.NDArray[np.int32]] = []
    counts = np.empty((len(texts), 2), np.int64)  # of words and pieces
    for number, text in enumerate(texts):
        columns, words = features(text)
        indices.append(columns.astype(np.int32))
        counts[number] = words, len(columns) - words
    weighed = (1 / np.sqrt(np.maximum(counts, 1))).astype(np.float32)
    values = np.repeat(weighed.ravel(), counts.ravel())
    ends = np.append(0, np.cumsum(counts.sum(1)))
    joined = np.concatenate([*indices, np.empty(0, np.int32)])
    return sparse.csr_matrix((values, joined, ends), shape=(len(texts), 1 << features.bits))


def fit(rows: Matrix, targets: Floats, penalty: float | None = None, scale: Sequence[float] | None = None) -> Fitted:
    """targets: of each row, the teacher's scores of the choices, which add up to 1. penalty: found by trying, unless given.

    scale: the place of each choice from 0 to 1, if they share weights.
    """
    with threadpool_limits(1):  # of linear algebra: vectors this short are done before a second thread has begun
        return _fit(rows, targets, penalty, scale)


def _fit(rows: Matrix, targets: Floats, penalty: float | None, scale: Sequence[float] | None) -> Fitted:
    inner, used = _used(rows)
    goal = targets[:, :1] if targets.shape[1] == PAIR else targets
    places = _places(goal.shape[1], scale)
    penalty = penalty or _best_penalty(inner, goal, places)
    weights, bias = _solve(inner, goal, penalty, places)
    whole = np.zeros((goal.shape[1], rows.shape[1]), np.float32)
    whole[:, used] = _by_choice(weights, places).T.astype(np.float16)  # as the file will have them
    return Fitted(whole, bias, penalty)


def _used(rows: Matrix) -> tuple[Matrix, npt.NDArray[np.intp]]:
    """The columns that rows have, next to each other, and which they were. Shares the values."""
    if isinstance(rows, np.ndarray):
        return rows, np.arange(rows.shape[1])
    used = np.flatnonzero(np.bincount(rows.indices, minlength=1))
    place = np.zeros(rows.shape[1], np.int32)
    place[used] = np.arange(len(used), dtype=np.int32)
    return sparse.csr_matrix((rows.data, place[rows.indices], rows.indptr), shape=(rows.shape[0], len(used))), used


def _places(count: int, scale: Sequence[float] | None) -> Places:
    """One choice that stands for both is on a scale anyway."""
    return None if scale is None or count == 1 else np.array([scale], np.float32)


def _by_choice(of_weights: Any, places: Places) -> Any:
    """(rows, choices) of (rows, columns of weights)."""
    return of_weights if places is None else of_weights @ places


def _best_penalty(rows: Matrix, goal: Floats, places: Places) -> float:
    """The one with the least cross-entropy on rows that were not learned from. Past the best, none is tried."""
    order = np.random.default_rng(0).permutation(rows.shape[0])[:MOST_CHOOSING]
    rows, goal = _used(rows[order])[0], goal[order]
    parts = np.arange(len(order)) % FOLDS
    folds = [(np.flatnonzero(parts != part), np.flatnonzero(parts == part)) for part in range(FOLDS)]
    starts: list[Any] = [None] * FOLDS
    best = (np.inf, PENALTIES[0])
    for penalty in PENALTIES:
        total = 0.0
        for number, (learned, held) in enumerate(folds):
            weights, bias = starts[number] = _solve(rows[learned], goal[learned], penalty, places, starts[number])
            total += _loss(_by_choice(rows[held] @ weights, places) + bias, goal[held])[0] * len(held)
        if total > best[0]:
            break
        best = (total, penalty)
    return best[1]


def _solve(
    rows: Matrix, goal: Floats, penalty: float, places: Places, start: tuple[Any, Floats] | None = None
) -> tuple[npt.NDArray[np.float32], Floats]:
    """Weights (columns x choices, or x 1 where choices share them) and bias (choices) of the least penalised loss."""
    width, count = rows.shape[1], goal.shape[1]
    lines = count if places is None else 1
    turned = rows.T if isinstance(rows, np.ndarray) else rows.T.tocsr()

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights, bias = flat[:-count].reshape(width, lines), flat[-count:]
        value, slope = _loss(_by_choice(rows @ weights.astype(np.float32), places) + bias, goal)
        pull = slope if places is None else slope @ places.T
        inner = turned @ pull.astype(np.float32) + penalty * weights
        return value + penalty / 2 * float(np.vdot(weights, weights)), np.concatenate([inner.ravel(), slope.sum(0)])

    begin = np.zeros(width * lines + count)
    if start is not None:
        begin = np.concatenate([start[0].ravel(), start[1]])
    found = optimize.minimize(
        loss, begin, jac=True, method="L-BFGS-B", options={"maxiter": STEPS, "ftol": 1e-7, "gtol": 1e-7}
    )
    return found.x[:-count].reshape(width, lines).astype(np.float32), found.x[-count:]


def _loss(logits: Floats, goal: Floats) -> tuple[float, Floats]:
    """Mean cross-entropy, and its slope by the logits. One column is the logit of the first of two choices."""
    rows = len(logits)
    if goal.shape[1] == 1:
        value = np.logaddexp(0, logits) - goal * logits
        return float(value.sum() / rows), (_sigmoid(logits) - goal) / rows
    log_odds = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return float(-(goal * log_odds).sum() / rows), (np.exp(log_odds) * goal.sum(1, keepdims=True) - goal) / rows


def _sigmoid(logits: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(logits, -MOST_LOGIT, MOST_LOGIT)))
