"""From scores and facts of judged rows to one score that is the share of right ones among rows like it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from batchinfer.core.arrays import Floats
from batchinfer.evaluate.logistic import PENALTIES, cross_fit, fit_many, folds_of, held_out_scales, log_losses
from batchinfer.evaluate.stats import Bin, area, weighted_areas
from batchinfer.versions.calibration import EDGE, Feature, Scale

FEWEST, FEWEST_OF_A_KIND = 50, 15  # verdicts, and right or wrong ones
FEWEST_IN_A_BIN, MOST_BINS = 20, 10
WITHOUT = 1e6  # times the penalty of a score: a fact has no weight then
PARTS = (0.25, 0.5, 0.75, 1.0)  # of the verdicts, for the learning curve
DRAWS = 6
WORTH = 0.01  # nats of log loss; less than that is no reason to ask people for more
ROUNDED = 10


@dataclass(frozen=True, slots=True)
class JudgedScores:
    """Rows that people judged.

    values: (rows, columns); NaN where a row has none.
    right: what people said.
    groups: that of each row.
    """

    values: Floats
    right: NDArray[np.bool_]
    groups: Sequence[str]


@dataclass(frozen=True, slots=True)
class LearningPoint:
    """What a part of the verdicts would have come to, on groups that were held out.

    verdicts: how many.
    auc: the area under the ROC curve, from 0 to 1.
    loss: the mean log loss once their log-odds are scaled, in nats.
    """

    verdicts: int
    auc: float
    loss: float


@dataclass(frozen=True, slots=True)
class FittedScores:
    """A model of scores, and how good it is.

    intercept: log-odds of a row whose features are all at their mean.
    features: those that have a weight.
    penalties: on the squares of the weights, one for each column of the design.
    held_out: scores of the judged rows, from 0 to 1, each by the verdicts of other groups alone.
    """

    intercept: float
    features: tuple[Feature, ...]
    penalties: Floats
    held_out: Floats


def verdicts_missing(right: int, wrong: int) -> int:
    """About how many more verdicts are needed before anything can be learned; 0 if there are enough.

    By the share of the rarer kind among those that there are, as if there were one more of each: none of a few is not none at all.
    """
    count, fewer = right + wrong, min(right, wrong)
    rate = (fewer + 1) / (count + 2)
    return max(FEWEST - count, math.ceil((FEWEST_OF_A_KIND - fewer) / rate), 0)


def fit_scores(judged: JudgedScores, names: Sequence[str], are_scores: Sequence[bool]) -> FittedScores:
    """Learns from judged rows. names: of the columns. are_scores: whether a column is a score; else it is a plain fact.

    Facts get a weight only where that does better on groups that were held out.
    """
    design = _Design.of(judged.values, names, are_scores)
    folds = folds_of(judged.groups)
    facts = np.where(design.facts, WITHOUT, 1.0)
    candidates = np.concatenate([PENALTIES[:, None] * facts, PENALTIES[:, None] * np.ones_like(facts)])
    if not design.facts.any() or design.facts.all():
        candidates = PENALTIES[:, None] * np.ones_like(facts)
    crossed = cross_fit(design.x, judged.right, folds, candidates)
    weights = fit_many(design.x, judged.right, np.ones((1, len(design.x))), crossed.penalties[None])[0]
    weights = weights * crossed.scale[0] + np.append(np.zeros(len(weights) - 1), crossed.scale[1])
    return FittedScores(
        float(weights[-1]), design.features(weights[:-1], crossed.penalties < WITHOUT * PENALTIES.min()), crossed.penalties,
        special.expit(crossed.log_odds),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Design:
    """What a model sees of rows.

    x: (rows, columns): standardised values, 0 for what is missing, then 1 where it is.
    facts: which columns are no scores.
    sources: of each of the first columns its place among the values, scale, mean and spread.
    gaps: the places of the values that the other columns say to be missing.
    """

    x: Floats
    facts: NDArray[np.bool_]
    sources: tuple[tuple[str, Scale, float, float], ...]
    gaps: tuple[str, ...]

    @classmethod
    def of(cls, values: Floats, names: Sequence[str], are_scores: Sequence[bool]) -> _Design:
        columns, sources, facts = list[Any](), list[tuple[str, Scale, float, float]](), list[bool]()
        gaps, missing = list[str](), list[Any]()
        for name, value, is_score in zip(names, values.T, are_scores, strict=True):
            known = np.isfinite(value)
            scale = scale_of(value[known]) if is_score else Scale.PLAIN
            scaled = scaled_values(value, scale)
            spread = float(scaled[known].std()) if known.any() else 0.0
            if spread > 0:
                mean = float(scaled[known].mean())
                columns.append(np.where(known, (scaled - mean) / spread, 0.0))
                sources.append((name, scale, mean, spread))
                facts.append(not is_score)
                if not known.all():
                    gaps.append(name)
                    missing.append(1.0 - known)
        x = np.column_stack([*columns, *missing]) if columns else np.zeros((len(values), 0))
        return cls(x, np.array([*facts, *[True] * len(missing)], dtype=bool), tuple(sources), tuple(gaps))

    def features(self, weights: Floats, used: NDArray[np.bool_]) -> tuple[Feature, ...]:
        """Those with a weight. used: whether each column has one."""
        if_missing = {
            name: float(weight)
            for name, weight, is_used in zip(
                self.gaps, weights[len(self.sources) :], used[len(self.sources) :], strict=True
            )
            if is_used
        }
        return tuple(
            Feature(name, scale, mean, spread, float(weight), if_missing.get(name, 0.0))
            for (name, scale, mean, spread), weight, is_used in zip(self.sources, weights, used, strict=False)
            if is_used
        )


def scale_of(known: Floats) -> Scale:
    """Log-odds for what may be probabilities; log-probabilities and the like are taken as they are."""
    return Scale.LOGIT if len(known) and known.min() >= 0 and known.max() <= 1 else Scale.PLAIN


def scaled_values(values: Floats, scale: Scale) -> Floats:
    """Values on their scale; NaN stays."""
    if scale is Scale.PLAIN:
        return values
    return np.asarray(special.logit(np.clip(values, EDGE, 1 - EDGE)), dtype=float)


def learning_curve(
    judged: JudgedScores, names: Sequence[str], are_scores: Sequence[bool], penalties: Floats
) -> tuple[LearningPoint, ...]:
    """What random parts of the verdicts come to on the groups that were held out, on average over some draws.

    penalties: as they were chosen by all verdicts.
    """
    x, folds = _Design.of(judged.values, names, are_scores).x, folds_of(judged.groups)
    generator, count = np.random.default_rng(0), int(folds.max()) + 1
    order = generator.random((DRAWS, len(x)))
    others = folds[None] != np.arange(count)[:, None]
    found = []
    for part in PARTS:
        drawn = order[: 1 if part == PARTS[-1] else DRAWS]
        weights = (others & (drawn <= np.quantile(drawn, part, axis=1)[:, None])[:, None]).reshape(-1, len(x))
        fits = fit_many(x, judged.right, weights.astype(float), np.tile(penalties, (len(weights), 1)))
        mine = fits.reshape(len(drawn), count, -1)[:, folds]
        odds = np.einsum("drw,rw->dr", mine[..., :-1], x) + mine[..., -1]
        whole = np.ones((1, len(x)))
        scales = np.stack([held_out_scales(each, judged.right, whole)[0] for each in odds])
        areas, odds = [held_out_area(each, judged.right, folds) for each in odds], scales[:, :1] * odds + scales[:, 1:]
        loss = float(log_losses(odds, judged.right).mean())
        found.append(LearningPoint(round(part * len(x)), float(np.mean(areas)), loss))
    return tuple(found)


def held_out_area(scores: Floats, right: NDArray[np.bool_], folds: NDArray[np.int64]) -> float:
    """The area under the ROC curve of scores that each fold got from a model of its own: over the pairs within folds.

    Those models differ in their offsets, so rows of two folds cannot be put in one order. Where no fold has rows of both kinds,
    all pairs count.
    """
    members = (folds[None] == np.arange(int(folds.max()) + 1)[:, None]).astype(float)
    pairs = (members @ right) * (members @ ~right)
    if not pairs.any():
        return area(scores, right)
    areas = weighted_areas(scores, right, members[pairs > 0])
    return float(np.average(areas, weights=pairs[pairs > 0]))


def worthwhile(points: Sequence[LearningPoint]) -> int:
    """How many more verdicts would bring the loss to within WORTH of its limit, if it falls as one over their number does."""
    inverse = np.array([1 / point.verdicts for point in points])
    slope = float(np.polyfit(inverse, [point.loss for point in points], 1)[0])
    more = slope / WORTH - points[-1].verdicts
    return max(0, math.ceil(min(more, 1e6) / ROUNDED) * ROUNDED)


def ranked_bins(scores: Floats, right: NDArray[np.bool_], bins: int | None = None) -> list[Bin]:
    """The rows in bins of equal count by their score. bins: as many as leave FEWEST_IN_A_BIN rows in each unless given."""
    count = max(1, min(MOST_BINS, len(scores) // FEWEST_IN_A_BIN)) if bins is None else bins
    parts = np.array_split(np.argsort(scores, kind="stable"), count)
    return [Bin(float(scores[part].mean()), float(right[part].mean()), len(part)) for part in parts]


def chance_error(bins: Sequence[Bin]) -> float:
    """The calibration error that so few rows show although their scores are right: the mean size of a normal deviation."""
    spread = [math.sqrt(2 / math.pi * each.score * (1 - each.score) / each.rows) for each in bins]
    return sum(each.rows * size for each, size in zip(bins, spread, strict=True)) / sum(each.rows for each in bins)
