"""Statistics and figures of groups beside those of statsmodels, scikit-learn and fairlearn, which are asked in tests alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fairlearn.metrics import MetricFrame, selection_rate
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint, proportions_ztest

from batchinfer.core.intervals import wilson
from batchinfer.core.significance import shares_p, shown_together
from batchinfer.evaluate import stats
from batchinfer.evaluate.answers import ArmAnswer
from batchinfer.evaluate.audit import audit
from batchinfer.evaluate.sentences import KINDS, FilledSentences, judge_sentences
from batchinfer.evaluate.terms import TermGroups
from batchinfer.job.audit_spec import AuditLimits
from tests.evaluate.scorer import CHOICES
from tests.factories import LENIENT, Quiet, model_job, write
from tests.review.lists import CHOICE, scores

pytestmark = pytest.mark.long  # the oracles take seconds to import
DRAWN = np.random.default_rng(7)


@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_holms_correction(count: int) -> None:
    """Corrected probabilities, and which are shown, are those of statsmodels; ties and ones among them."""
    for _ in range(2):
        p = np.round(DRAWN.beta(0.3, 2, size=count), 3)
        shown, corrected, *_ = multipletests(p, alpha=0.05, method="holm")
        assert np.allclose(stats.holm(p), corrected)
        assert shown_together(list(p)) == list(shown)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (5, 5), (12, 3), (0, 9), (40, 61)])
def test_mcnemars_exact_test(wins: int, losses: int) -> None:
    """Of the rows on which two arms differ."""
    assert stats.mcnemar(wins, losses) == pytest.approx(mcnemar([[7, wins], [losses, 3]], exact=True).pvalue)


@pytest.mark.parametrize(("right", "rows"), [(0, 5), (5, 5), (1, 50), (37, 120), (9_000, 10_000)])
def test_wilsons_interval(right: int, rows: int) -> None:
    """Of a share."""
    found = wilson(right, rows)
    assert (found.low, found.high) == pytest.approx(proportion_confint(right, rows, method="wilson"))


@pytest.mark.parametrize(("part", "whole", "others", "rest"), [(10, 60, 40, 100), (1, 50, 3, 900), (30, 80, 60, 160)])
def test_two_shares(part: int, whole: int, others: int, rest: int) -> None:
    """A group's share against that of the rows outside it."""
    _, p = proportions_ztest([part, others], [whole, rest])
    assert shares_p(part, whole, others, rest) == pytest.approx(p)


def test_areas_and_reliability() -> None:
    """With many equal scores; and the bins of a reliability plot."""
    for _ in range(5):
        scored, positive = np.round(DRAWN.random(80), 1), DRAWN.random(80) < 0.4
        area = roc_auc_score(positive, scored)
        assert stats.area(scored, positive) == pytest.approx(area)
        assert stats.placements(scored, positive)[positive].mean() == pytest.approx(area)
        inside = DRAWN.random(80)
        shares, means = calibration_curve(positive, inside, n_bins=10, strategy="uniform")
        bins = stats.reliability(inside, positive)
        assert [each.right for each in bins] == pytest.approx(list(shares))
        assert [each.score for each in bins] == pytest.approx(list(means))


def test_areas_of_groups() -> None:
    """Subgroup, BPSN and BNSP are areas of the rows that they are said to be of."""
    groups, right, scored = DRAWN.integers(0, 3, 300), DRAWN.random(300) < 0.5, DRAWN.random(300)
    names = ["a", "b", "c"]
    terms = TermGroups("people", {name: (name,) for name in names})
    sentences = FilledSentences(
        pa.table({}), tuple(("people", names[group]) for group in groups), np.arange(300),
        tuple(CHOICES[0] if up else CHOICES[1] for up in right),
    )  # fmt: skip
    answers = [ArmAnswer(CHOICES[0], score, {CHOICES[0]: score, CHOICES[1]: 1 - score}) for score in scored.tolist()]
    for place, found in enumerate(judge_sentences(sentences, answers, [terms], CHOICES[0], AuditLimits())):
        own = groups == place
        subsets = (own, own & ~right | ~own & right, own & right | ~own & ~right)
        wanted = {kind: roc_auc_score(right[rows], scored[rows]) for kind, rows in zip(KINDS, subsets, strict=True)}
        assert found.areas == pytest.approx(wanted)
        assert found.background == pytest.approx(roc_auc_score(right[~own], scored[~own]))


def test_figures_of_slices(tmp_path: Path) -> None:
    """Rows, accuracy on golden rows, and shares of a choice, of each group, are those of fairlearn's MetricFrame."""
    ids = list(range(240))
    languages = [("de", "en", "my")[number % 3] for number in ids]
    said = [CHOICES[int(share > 0.4)] for share in DRAWN.random(240)]
    wanted = [CHOICES[int(share > 0.5)] for share in DRAWN.random(240)]
    gate = LENIENT | {"golden": {"path": "golden.parquet", "accuracy": 0}}
    columns = {"id": ids, "text": [str(number) for number in ids], "language": languages}
    world = model_job(tmp_path, columns, output=CHOICE, gate=gate, audit={"slices": ["language"]})
    first = world.job.spec.output.choices[0]  # type: ignore[index]
    names = dict(zip(CHOICES, world.job.spec.output.choices or [], strict=True))
    write(world.job.folder / "golden.parquet", {"id": ids, "answer": [names[answer] for answer in wanted]})
    world.answer(lambda row: scores(0.9 if said[row["id"]] == CHOICES[0] else 0.1))
    world.publish()
    metrics = {
        "accuracy": accuracy_score,
        "first": lambda true, given: selection_rate(true, given, pos_label=CHOICES[0]),
    }
    frame = MetricFrame(metrics=metrics, y_true=wanted, y_pred=said, sensitive_features=languages).by_group
    for each in audit(world.job, world.data, None, Quiet()).slices:
        assert each.figures.golden == 80
        assert each.figures.right / 80 == pytest.approx(frame["accuracy"][each.value])
        assert each.figures.value_shares[first][0] == pytest.approx(frame["first"][each.value])
