"""Groups of rows: what counts as too far apart, and what as not known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from batchinfer.job.audit_spec import AuditLimits
from batchinfer.job.spec import GateSpec
from batchinfer.publish.fairness import Fairness
from batchinfer.publish.gate import Figures, judge
from batchinfer.publish.slices import AuditedSlice, FairVerdict, SliceFigures, judge_slices, verdict_of

LIMITS = AuditLimits()


def judged(limits: AuditLimits = LIMITS, **groups: SliceFigures) -> dict[str | None, AuditedSlice]:
    """Verdicts on the groups of a list that consists of them."""
    names = ("rows", "covered", "failed", "golden", "right")
    rows, covered, failed, golden, right = (sum(getattr(each, name) for each in groups.values()) for name in names)
    whole = SliceFigures(rows, covered, failed, golden=golden, right=right)
    found = judge_slices([("language", name, each) for name, each in groups.items()], whole, limits)
    return {each.value: each for each in found}


def figures(rows: int, covered: int, failed: int = 0, **others: Any) -> SliceFigures:
    return SliceFigures(rows, covered, failed, **others)


@pytest.mark.parametrize(
    ("group", "verdict", "why"),
    [
        (figures(100, 99), FairVerdict.PASS, ""),
        (figures(100, 60, 5), FairVerdict.FAIL, "coverage 60.0%"),
        (figures(100, 90, 30), FairVerdict.FAIL, "failures 30.0%"),
        (figures(49, 49), FairVerdict.UNKNOWN, "fewer than 50 rows"),
        (figures(49, 0, 49), FairVerdict.UNKNOWN, "fewer than 50 rows"),
        (figures(100, 99, golden=60, right=30), FairVerdict.FAIL, "accuracy 50.0%"),
        (figures(100, 99, golden=20, right=20), FairVerdict.UNKNOWN, "20 golden rows"),
    ],
)
def test_a_group_beside_a_large_one(group: SliceFigures, verdict: FairVerdict, why: str) -> None:
    """A figure beyond its limit fails; too few rows, or golden rows, are not enough data; otherwise the group passes."""
    found = judged(
        my=group, en=figures(2000, 1990, 5, golden=500, right=480) if group.golden else figures(2000, 1990, 5)
    )
    assert found["my"].verdict is verdict
    assert why in "; ".join(found["my"].why)
    assert found["en"].verdict is FairVerdict.PASS


def test_what_may_be_chance_does_not_fail_and_does_not_pass() -> None:
    """A gap beyond its limit that so few rows show by chance is not enough data."""
    groups = {"my": figures(50, 50, golden=50, right=44), "en": figures(60, 60, golden=60, right=58)}
    narrow = judged(AuditLimits(accuracy_gap=0.04), **groups)["my"]
    assert narrow.verdict is FairVerdict.UNKNOWN
    assert "which may be chance" in narrow.why[0]
    assert judged(AuditLimits(accuracy_gap=0.05), **groups)["my"].verdict is FairVerdict.PASS


def test_many_groups_without_a_difference_rarely_fail() -> None:
    """Of 300 lists with twenty groups that are alike, with no limit but significance, at most 7 % have one that fails."""
    generator, fails = np.random.default_rng(5), 0
    strict = AuditLimits(coverage_ratio=1, failure_gap=0)
    for _ in range(300):
        groups = {f"g{number}": figures(100, int(generator.binomial(100, 0.7))) for number in range(20)}
        fails += any(each.verdict is FairVerdict.FAIL for each in judged(strict, **groups).values())
    assert fails <= 0.07 * 300


def test_one_verdict_for_all() -> None:
    """Fail if any fails; nothing, or something unknown, never reads as fair."""
    assert verdict_of([FairVerdict.PASS, FairVerdict.PASS]) is FairVerdict.PASS
    assert verdict_of([FairVerdict.UNKNOWN, FairVerdict.FAIL]) is FairVerdict.FAIL
    assert verdict_of([FairVerdict.UNKNOWN, FairVerdict.PASS]) is FairVerdict.UNKNOWN
    assert verdict_of([]) is FairVerdict.UNKNOWN


def test_the_gate_names_the_groups() -> None:
    """A group that fails refuses, and is named; so does an audit that could say nothing; one small group does not."""
    groups = judged(my=figures(100, 60), en=figures(2000, 1990), zu=figures(3, 3))
    fine = Figures(keys=1, covered=1, attempted=1, failed=0, entries=1)

    def check(*names: str) -> Any:
        held = tuple(groups[name] for name in names)
        return next(each for each in judge(GateSpec(audit=True), fine, Fairness(held)) if each.name == "audit")

    assert not check("my", "en").passed
    assert "language=my" in check("my", "en").message
    assert check("en", "zu").passed
    assert "not enough data for language=zu" in check("en", "zu").message
    assert not check("zu").passed
    assert "audit" not in {each.name for each in judge(GateSpec(), fine)}
