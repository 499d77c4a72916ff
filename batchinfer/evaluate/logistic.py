"""Logistic regression with a quadratic penalty, many at once, and what it says of folds that were held out. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from batchinfer.core.arrays import Floats

# factors of the squares of weights, beside the sum of losses
PENALTIES = np.array([0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0])
MOST_FOLDS = 12
STEPS, ENOUGH = 40, 1e-8  # of Newton's method, and a step that is none
RIDGE = 1e-6  # on the intercept, so that it stays finite where all rows are of one kind
TINY = 1e-12


@dataclass(frozen=True, slots=True)
class CrossFit:
    """The penalties that did best on folds that were held out.

    penalties: one for each column.
    log_odds: what each row got from the rows of the other folds, with the scale that these gave.
    scale: by which log-odds are multiplied, and what is added then, by all rows.
    loss: the mean log loss of the log-odds.
    """

    penalties: Floats
    log_odds: Floats
    scale: tuple[float, float]
    loss: float


def folds_of(groups: Sequence[str], most: int = MOST_FOLDS) -> NDArray[np.int64]:
    """The fold of each row, numbered from 0. Rows of one group are in one fold; the largest groups are dealt out first."""
    sizes = sorted(Counter(groups).items(), key=lambda item: (-item[1], item[0]))
    rows, place = [0] * min(most, len(sizes)), dict[str, int]()
    for group, size in sizes:
        place[group] = rows.index(min(rows))
        rows[place[group]] += size
    return np.array([place[group] for group in groups], dtype=np.int64)


def fit_many(x: Floats, right: NDArray[np.bool_], weights: Floats, penalties: Floats) -> Floats:
    """Weights and an intercept, which is not penalised, for each of (fits, rows) weights and (fits, columns) penalties.

    By Newton's method. x: (rows, columns). Returns (fits, columns + 1).
    """
    design = np.column_stack([x, np.ones(len(x))])
    penalty = np.column_stack([penalties, np.full(len(penalties), RIDGE)])
    found = np.zeros((len(weights), design.shape[1]))
    diagonal = range(design.shape[1])
    for _ in range(STEPS):
        chance = special.expit(found @ design.T)
        slope = (weights * (chance - right)) @ design + penalty * found
        curve = np.matmul((weights * chance * (1 - chance))[:, None, :] * design.T, design)
        curve[:, diagonal, diagonal] += penalty
        step = np.linalg.solve(curve, slope[..., None])[..., 0]
        found -= np.clip(step, -2, 2)  # no step leads out of where chances can be told from 0 and 1
        if np.abs(step).max() < ENOUGH:
            break
    return found


def cross_fit(x: Floats, right: NDArray[np.bool_], folds: NDArray[np.int64], candidates: Floats) -> CrossFit:
    """Chooses among (candidates, columns) penalties by the log loss on folds that were held out.

    What counts is the loss once log-odds are scaled, as they are used: a penalty that makes them small may order rows best.
    """
    count = int(folds.max()) + 1
    others = (folds[None] != np.arange(count)[:, None]).astype(float)
    fits = fit_many(x, right, np.repeat(others, len(candidates), axis=0), np.tile(candidates, (count, 1)))
    mine = fits.reshape(count, len(candidates), -1)[folds]
    odds = np.einsum("rcw,rw->cr", mine[..., :-1], x) + mine[..., -1].T
    weights = np.concatenate([others, np.ones((1, len(x)))])
    scales = np.stack([held_out_scales(each, right, weights) for each in odds])
    scaled = scales[:, folds, 0] * odds + scales[:, folds, 1]
    losses = log_losses(scaled, right)
    best = int(losses.argmin())
    by_all = (float(scales[best, -1, 0]), float(scales[best, -1, 1]))
    return CrossFit(candidates[best], scaled[best], by_all, float(losses[best]))


def held_out_scales(odds: Floats, right: NDArray[np.bool_], weights: Floats) -> Floats:
    """By what log-odds must be multiplied, and what is added then, since a penalty makes them too small: (fits, 2).

    Where larger ones are no better they say nothing, and the share of right rows is all that is known.
    """
    found = fit_many(odds[:, None], right, weights, np.full((len(weights), 1), RIDGE))
    shares = np.clip(weights @ right / weights.sum(axis=1), RIDGE, 1 - RIDGE)
    nothing = np.column_stack([np.zeros(len(weights)), special.logit(shares)])
    return np.where(found[:, :1] > 0, found, nothing)


def log_losses(log_odds: Floats, right: NDArray[np.bool_]) -> Floats:
    """The mean log loss along the last axis."""
    return np.asarray(np.logaddexp(0, np.where(right, -log_odds, log_odds)).mean(axis=-1), dtype=float)
