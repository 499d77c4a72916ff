"""The gate: each check at its limit, and what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.core.records import Check
from batchinfer.job.spec import GateSpec, GoldenSpec
from batchinfer.publish.gate import Figures, judge

FINE = Figures(keys=1000, covered=1000, attempted=1000, failed=0, entries=1000, served=1000, golden=1000, right=1000)
GOLDEN = GoldenSpec(path="golden.parquet")


def verdict(name: str, spec: GateSpec, figures: Figures) -> Check:
    """The check of that name."""
    [found] = [check for check in judge(spec, figures) if check.name == name]
    return found


@pytest.mark.parametrize(
    ("name", "field", "at_limit", "beyond"),
    [
        ("coverage", "covered", 950, 949),
        ("failures", "failed", 50, 51),
        ("shrink", "missing", 100, 101),
        ("changed", "changed", 500, 501),
        ("rows", "entries", 1, 0),
        ("carried", "carried", 100, 101),
        ("golden", "right", 900, 899),
    ],
)
def test_each_check_passes_at_its_default_limit_and_fails_beyond(
    name: str, field: str, at_limit: int, beyond: int
) -> None:
    """What just passes by default, and one row more or less, which fails that check and no other."""
    spec = GateSpec(golden=GOLDEN)
    assert all(check.passed for check in judge(spec, replace(FINE, **{field: at_limit})))
    assert [check.name for check in judge(spec, replace(FINE, **{field: beyond})) if not check.passed] == [name]


@pytest.mark.parametrize(
    ("name", "field"),
    [("failures", "failed"), ("shrink", "missing"), ("changed", "changed"), ("carried", "carried")],
)
@given(percent=st.integers(0, 100), hundreds=st.integers(1, 10_000))
def test_a_limit_in_percent_is_exact(name: str, field: str, percent: int, hundreds: int) -> None:
    """Whatever the limit and the size, the row that reaches the limit passes and the next fails: no rounding decides."""
    spec = GateSpec.model_validate({name: float(f"{percent / 100:.2f}")})
    whole = 100 * hundreds
    figures = Figures(keys=whole, covered=whole, attempted=whole, failed=0, entries=whole, served=whole)
    assert verdict(name, spec, replace(figures, **{field: percent * hundreds})).passed
    if percent < 100:
        assert not verdict(name, spec, replace(figures, **{field: percent * hundreds + 1})).passed


@given(percent=st.integers(0, 100), hundreds=st.integers(1, 10_000))
def test_a_coverage_in_percent_is_exact(percent: int, hundreds: int) -> None:
    """Exactly as much coverage as is wanted is enough, and one key less is not."""
    spec = GateSpec(coverage=float(f"{percent / 100:.2f}"))
    figures = Figures(keys=100 * hundreds, covered=percent * hundreds, attempted=0, failed=0, entries=1)
    assert verdict("coverage", spec, figures).passed
    if percent:
        assert not verdict("coverage", spec, replace(figures, covered=percent * hundreds - 1)).passed


def test_a_first_version_is_compared_with_nothing() -> None:
    """Where nothing is served there is nothing to shrink, to change or to be carried, and only the other checks are made."""
    checks = judge(GateSpec(shrink=0, changed=0, carried=0), replace(FINE, served=0))
    assert [check.name for check in checks] == ["coverage", "failures", "rows"]
    compared = ["coverage", "failures", "rows", "shrink", "changed", "carried"]
    assert [check.name for check in judge(GateSpec(), FINE)] == compared
    assert [check.name for check in judge(GateSpec(golden=GOLDEN), FINE)] == [*compared, "golden"]


def test_a_list_without_keys_is_not_covered() -> None:
    """No keys at all is a coverage of zero, which only a gate that wants none lets through."""
    nothing = Figures(keys=0, covered=0, attempted=0, failed=0, entries=0)
    assert verdict("coverage", GateSpec(), nothing) == replace(
        verdict("coverage", GateSpec(), nothing), value=0.0, passed=False
    )
    assert verdict("coverage", GateSpec(coverage=0), nothing).passed


def test_nothing_asked_is_nothing_failed() -> None:
    """A list that needed no prompt has no failures, even where none are allowed."""
    check = verdict("failures", GateSpec(failures=0), Figures(keys=5, covered=5, attempted=0, failed=0, entries=5))
    assert (check.value, check.passed) == (0.0, True)


def test_a_limit_of_all_or_nothing_works() -> None:
    """0 and 1 are limits like any other: nothing may change, or everything."""
    strict, lax = (
        GateSpec(
            coverage=1, failures=0, rows=10, shrink=0, changed=0, carried=0, golden=GoldenSpec(path="g", accuracy=1)
        ),
        GateSpec(
            coverage=0, failures=1, rows=1, shrink=1, changed=1, carried=1, golden=GoldenSpec(path="g", accuracy=0)
        ),
    )
    worst = Figures(
        keys=9, covered=0, attempted=9, failed=9, entries=9, carried=9, served=9, missing=9, changed=9, golden=9
    )
    assert all(check.passed for check in judge(strict, FINE))
    assert not any(check.passed for check in judge(strict, worst))
    assert all(check.passed for check in judge(lax, worst))


def test_a_verdict_says_its_figures() -> None:
    """A person reads how many of how many, the share, and the limit; a machine reads the same as numbers."""
    figures = Figures(
        keys=12_000, covered=9_000, attempted=8_000, failed=1_000, entries=8_000, carried=2_000, served=4_000, missing=1_000,
        changed=3_000, golden=2_000, right=500,
    )  # fmt: skip
    checks = judge(GateSpec(rows=10_000, golden=GOLDEN), figures)
    assert [check.message for check in checks] == [
        "9,000 of 12,000 keys have a prediction (75.0%; at least 95.0% wanted)",
        "1,000 of 8,000 prompts and bad rows failed (12.5%; at most 5.0% allowed)",
        "8,000 entries would be served (at least 10,000 wanted)",
        "1,000 of 4,000 served entries are gone (25.0%; at most 10.0% allowed)",
        "3,000 of 4,000 served values differ (75.0%; at most 50.0% allowed)",
        "2,000 of 8,000 entries are kept from the version before (25.0%; at most 10.0% allowed)",
        "500 of 2,000 golden rows are right (25.0%; at least 90.0% wanted)",
    ]
    assert [(check.value, check.limit, check.passed) for check in checks] == [
        (0.75, 0.95, False), (0.125, 0.05, False), (8_000, 10_000, False), (0.25, 0.1, False), (0.75, 0.5, False), (0.25, 0.1, False),
        (0.25, 0.9, False),
    ]  # fmt: skip


def test_what_awaits_review_fails_its_check() -> None:
    """With reviewed, no entry may be unseen that people should have reviewed; without it, nobody need look."""
    spec = GateSpec(reviewed="changed")
    assert verdict("reviewed", spec, FINE).passed
    assert verdict("reviewed", spec, replace(FINE, to_review=10)).passed
    check = verdict("reviewed", spec, replace(FINE, to_review=10, unseen=1))
    assert (check.passed, check.value) == (False, 0.1)
    assert "reviewed" not in [check.name for check in judge(GateSpec(), replace(FINE, to_review=1, unseen=1))]


def test_one_is_said_in_the_singular() -> None:
    """Each check counts one thing as one, of one or of many, and more as more."""
    spec = GateSpec(reviewed="all", golden=GOLDEN)
    names = ("covered", "failed", "missing", "changed", "carried", "unseen", "right")
    for part, wholes, said in ((1, 1, ONE_OF_ONE), (1, 20, ONE_OF_MANY), (2, 20, MANY)):
        totals = dict.fromkeys(("keys", "attempted", "entries", "served", "to_review", "golden"), wholes)
        messages = [check.message for check in judge(spec, Figures(**totals, **dict.fromkeys(names, part)))]
        assert [message.partition(" (")[0] for message in messages] == said


ONE_OF_ONE = [
    "1 of 1 key has a prediction", "1 of 1 prompt or bad row failed", "1 entry would be served", "1 of 1 served entry is gone",
    "1 of 1 served value differs", "1 of 1 entry is kept from the version before", "1 of 1 entry of the model awaits review",
    "1 of 1 golden row is right",
]  # fmt: skip
ONE_OF_MANY = [
    "1 of 20 keys has a prediction", "1 of 20 prompts and bad rows failed", "20 entries would be served",
    "1 of 20 served entries is gone", "1 of 20 served values differs", "1 of 20 entries is kept from the version before",
    "1 of 20 entries of the model awaits review", "1 of 20 golden rows is right",
]  # fmt: skip
MANY = [
    "2 of 20 keys have a prediction", "2 of 20 prompts and bad rows failed", "20 entries would be served",
    "2 of 20 served entries are gone", "2 of 20 served values differ", "2 of 20 entries are kept from the version before",
    "2 of 20 entries of the model await review", "2 of 20 golden rows are right",
]  # fmt: skip
