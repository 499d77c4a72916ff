"""Calibrated scores, on simulated jobs whose truth is known, and the pieces that they are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from batchinfer.core.arrays import Floats
from batchinfer.evaluate.logistic import cross_fit, fit_many, folds_of
from batchinfer.evaluate.score_fit import (
    FEWEST,
    FittedScores,
    JudgedScores,
    chance_error,
    fit_scores,
    held_out_area,
    learning_curve,
    ranked_bins,
    scaled_values,
    verdicts_missing,
    worthwhile,
)
from batchinfer.evaluate.stats import Bin, area, calibration_error
from batchinfer.versions.calibration import Scale

JOBS, SCORES, GROUPS, VERDICTS, UNSEEN = 20, 5, 12, 150, 5000
SHARED = 0.25  # noise that all scores of a row have in common
NAMES = [f"score {number}" for number in range(SCORES)]


@dataclass(frozen=True)
class Outcome:
    """What a model that was learned from 150 verdicts comes to on rows of groups that it never saw.

    behind_best: the best linear model's area less its own. behind_single: the best score's less its own.
    """

    behind_best: float
    error: float
    behind_single: float


def rows_of(generator: np.random.Generator, facts: Floats, count: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Rows with five scores. facts: for each, how far right and wrong ones are apart, slope and offset; and the share of right ones."""
    distance, slope, offset = facts[0], facts[1], facts[2]
    right = generator.random(count) < facts[3, 0]
    signal = np.where(right, 0.5, -0.5)[:, None] * distance
    noise = generator.normal(size=(count, SCORES)) + SHARED * generator.normal(size=(count, 1))
    return special.expit((signal + noise) * slope + offset), right


def simulated(seed: int) -> Outcome:
    """A job whose scores alone have areas from 0.6 to 0.85, are no probabilities, and differ in how far they spread."""
    generator = np.random.default_rng(seed)
    quality = [NormalDist().inv_cdf(value) for value in generator.uniform(0.6, 0.85, SCORES)]
    distance = np.sqrt(2 * (1 + SHARED**2)) * np.array(quality)
    share = np.full(SCORES, generator.uniform(0.25, 0.75))
    facts = np.array([distance, generator.uniform(0.5, 3, SCORES), generator.normal(0, 1, SCORES), share])
    values, right = rows_of(generator, facts, VERDICTS)
    groups = [str(number) for number in generator.integers(0, GROUPS, VERDICTS)]
    fitted = fit_scores(JudgedScores(values, right, groups), NAMES, [True] * SCORES)
    values, right = rows_of(generator, facts, UNSEEN)
    scores = applied(fitted, values)
    odds = scaled_values(values, Scale.LOGIT)
    best = fit_many(odds, right, np.ones((1, UNSEEN)), np.full((1, SCORES), 1e-6))[0]
    own = area(scores, right)
    return Outcome(
        area(odds @ best[:-1], right) - own,
        calibration_error(ranked_bins(scores, right, 10)),
        max(area(column, right) for column in values.T) - own,
    )


def applied(fitted: FittedScores, values: Floats) -> Floats:
    """What a model makes of rows."""
    odds = np.full(len(values), fitted.intercept)
    for feature in fitted.features:
        column = scaled_values(values[:, NAMES.index(feature.name)], feature.scale)
        odds += np.where(
            np.isfinite(column), (column - feature.mean) / feature.spread * feature.weight, feature.missing
        )
    return np.asarray(special.expit(odds))


def test_what_is_promised_of_simulated_jobs() -> None:
    """On 5,000 rows of unseen groups, in 18 of 20 jobs: nearly the best order there is, and scores that are shares."""
    found = [simulated(seed) for seed in range(JOBS)]
    assert sum(each.behind_best <= 0.02 for each in found) >= 18
    assert sum(each.error <= 0.06 for each in found) >= 18
    assert sum(each.behind_single <= 0.01 for each in found) >= 19


@pytest.fixture(scope="module")
def judged() -> JudgedScores:
    """A good score, one that half of the rows have, a fact that says nothing, and one that is always the same."""
    generator = np.random.default_rng(3)
    right = generator.random(200) < 0.6
    score = special.expit(2 * (right - 0.5) + generator.normal(size=200))
    other = np.where(np.arange(200) % 2 == 0, -3 + right + generator.normal(size=200), np.nan)
    noise, same = generator.normal(size=200), np.ones(200)
    groups = [f"g{number % 9}" for number in range(200)]
    return JudgedScores(np.column_stack([score, other, noise, same]), right, groups)


NAMES_OF_JUDGED = ["score", "likelihood", "noise", "same"]


def test_what_the_model_looks_at(judged: JudgedScores) -> None:
    """Probabilities become log-odds, others stay; what says nothing has no weight, and what is missing is said."""
    fitted = fit_scores(judged, NAMES_OF_JUDGED, [True, True, False, False])
    found = {feature.name: feature for feature in fitted.features}
    assert found.keys() <= {"score", "likelihood", "noise"}
    assert (found["score"].scale, found["likelihood"].scale) == (Scale.LOGIT, Scale.PLAIN)
    assert found["score"].weight > 0.5
    assert abs(found["noise"].weight if "noise" in found else 0) < 0.2
    assert found["likelihood"].weight > 0.1
    again = fit_scores(judged, NAMES_OF_JUDGED, [True, True, False, False])
    assert (again.intercept, again.features) == (fitted.intercept, fitted.features)


def test_nothing_is_known(judged: JudgedScores) -> None:
    """Where no column differs, every row has the share of right ones."""
    fitted = fit_scores(JudgedScores(judged.values[:, 3:], judged.right, judged.groups), ["same"], [False])
    assert fitted.features == ()
    assert special.expit(fitted.intercept) == pytest.approx(judged.right.mean(), abs=0.01)


def test_more_verdicts_are_worth_less_and_less(judged: JudgedScores) -> None:
    """The learning curve goes by parts of the verdicts; of few, more are asked for than of many alike."""
    few = JudgedScores(judged.values[:60], judged.right[:60], judged.groups[:60])
    many = JudgedScores(np.tile(judged.values, (8, 1)), np.tile(judged.right, 8), list(judged.groups) * 8)
    curves = [learning_curve(each, NAMES_OF_JUDGED, [True, True, False, False], np.ones(4)) for each in (few, many)]
    assert [point.verdicts for point in curves[0]] == [15, 30, 45, 60]
    assert curves[0][0].loss > curves[0][-1].loss
    assert worthwhile(curves[0]) > 0
    assert worthwhile(curves[1]) == 0


def test_a_group_is_never_on_both_sides() -> None:
    """Groups are dealt out as wholes, evenly, and each row is a group of its own where there are no others."""
    groups = [f"g{number % 30}" for number in range(300)]
    folds = folds_of(groups)
    assert len({(group, fold) for group, fold in zip(groups, folds, strict=True)}) == 30
    assert sorted(np.bincount(folds).tolist()) == [20] * 6 + [30] * 6
    assert len(set(folds_of(["a", "b", "a"]).tolist())) == 2


def test_a_row_that_is_held_out_says_nothing_of_itself() -> None:
    """Of noise, what is held out has no area; what was learned has one."""
    generator = np.random.default_rng(1)
    x, right = generator.normal(size=(60, 20)), generator.random(60) < 0.5
    crossed = cross_fit(x, right, folds_of([str(row) for row in range(60)]), np.full((1, 20), 0.1))
    own = fit_many(x, right, np.ones((1, 60)), np.full((1, 20), 0.1))[0]
    assert area(x @ own[:-1], right) > 0.8
    assert area(crossed.log_odds, right) < 0.65


def test_one_score_is_ordered_as_it_was(judged: JudgedScores) -> None:
    """The models of two folds differ in their offsets, which is no fault of the order that each puts its rows in."""
    score, folds = judged.values[:, 0], folds_of(judged.groups)
    fitted = fit_scores(JudgedScores(judged.values[:, :1], judged.right, judged.groups), ["score"], [True])
    own = held_out_area(score, judged.right, folds)
    assert held_out_area(fitted.held_out, judged.right, folds) == pytest.approx(own)
    assert area(fitted.held_out, judged.right) < area(score, judged.right)
    whole = learning_curve(
        JudgedScores(judged.values[:, :1], judged.right, judged.groups), ["score"], [True], np.ones(1)
    )[-1]
    assert whole.auc == pytest.approx(own)


def test_pairs_of_rows_count_within_folds() -> None:
    """Each fold by its pairs of a right and a wrong row; all pairs where no fold has any."""
    right, folds = np.array([1, 1, 0, 1, 0, 0, 0], dtype=bool), np.array([0, 0, 0, 1, 1, 1, 2])
    scores = np.array([0.3, 0.1, 0.2, 0.8, 0.9, 0.9, 0.0])
    assert held_out_area(scores, right, folds) == pytest.approx((1 + 0) / 4)
    assert held_out_area(scores, right, np.arange(7)) == pytest.approx(area(scores, right))


def test_a_penalty_is_judged_by_scores_as_they_are_used() -> None:
    """Of eight witnesses that are worth the same, strong penalties make the best model, though its log-odds are too small at first."""
    generator = np.random.default_rng(0)
    right = generator.random(120) < 0.5
    x = (right - 0.5)[:, None] * 0.9 + generator.normal(size=(120, 8))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    folds = folds_of([str(row % 12) for row in range(120)])
    candidates = np.array([[1.0] * 8, [30.0] * 8])
    both, weak, strong = (cross_fit(x, right, folds, each) for each in (candidates, candidates[:1], candidates[1:]))
    assert strong.scale[0] > 1.5
    assert both.loss == pytest.approx(strong.loss)
    assert both.loss < weak.loss - 0.001
    assert both.penalties[0] == 30


def test_separable_rows_have_finite_weights() -> None:
    """A score that parts right from wrong ones without fault does not run away."""
    x = np.linspace(-1, 1, 60)[:, None]
    found = fit_many(x, x[:, 0] > 0, np.ones((2, 60)), np.array([[0.1], [1e-9]]))
    assert np.isfinite(found).all()
    assert found[0, 0] > 3


@pytest.mark.parametrize(
    ("right", "wrong", "more"),
    [(0, 0, FEWEST), (20, 20, 10), (60, 10, 33), (60, 0, 930), (6, 144, 196), (30, 30, 0), (85, 15, 0)],
)
def test_how_many_verdicts_are_missing(right: int, wrong: int, more: int) -> None:
    """Fifty, and fifteen of each kind, which take as long to come by as they are rare."""
    assert verdicts_missing(right, wrong) == more


def test_few_rows_err_by_chance() -> None:
    """Perfect scores of few rows seem a little wrong, by so much; bins of equal count hold twenty rows at least."""
    perfect = [Bin(0.5, 0.6, 20), Bin(0.5, 0.4, 20)]
    assert chance_error(perfect) == pytest.approx(math.sqrt(2 / math.pi) * 0.5 / math.sqrt(20))
    bins = ranked_bins(np.linspace(0, 1, 100), np.arange(100) >= 50)
    assert [each.rows for each in bins] == [20] * 5
    assert [each.right for each in bins] == [0, 0, 0.5, 1, 1]
