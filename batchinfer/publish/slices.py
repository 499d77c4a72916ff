"""Groups of a list's rows beside the whole list, and whether they stand too far apart. Pure: figures in, verdicts out.

Each share of a group is tested against that of the rows outside it. All tests of one audit are corrected together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from batchinfer.core.intervals import Interval, wilson
from batchinfer.core.significance import shares_p, shown_together
from batchinfer.job.audit_spec import AuditLimits


class FairVerdict(StrEnum):
    """What may be said of a group."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    UNKNOWN = "not enough data"


@dataclass(frozen=True, slots=True)
class SliceFigures:
    """What is counted of a group of keys.

    rows: keys of the list.
    covered: those with an entry.
    failed: those that failed, or whose rows are bad, and that have no entry.
    reasons: why, and how many for each reason.
    golden: those whose right answer is known.
    right: those of the golden ones that are answered so.
    tokens: median of the prompt's and the answer's tokens together; None where no model was asked.
    score: quantiles 10, 25, 50, 75 and 90 % of the scores; empty without scores.
    values: how often each choice is the prediction; empty for other outputs.
    """

    rows: int
    covered: int
    failed: int
    reasons: Mapping[str, int] = field(default_factory=dict)
    golden: int = 0
    right: int = 0
    tokens: float | None = None
    score: tuple[float, ...] = ()
    values: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Shares with their intervals of 95 %; `low` and `high` are those of the accuracy."""
        accuracy = wilson(self.right, self.golden) if self.golden else None
        return {
            "rows": self.rows, "coverage": self.coverage, "coverage_interval": _ends(wilson(self.covered, self.rows)),
            "failures": _share(self.failed, self.rows), "failures_interval": _ends(wilson(self.failed, self.rows)),
            "reasons": dict(self.reasons), "cut_off": self.reasons.get("cut_off", 0),
            "golden": self.golden, "accuracy": _share(self.right, self.golden) if self.golden else None,
            "low": accuracy and accuracy.low, "high": accuracy and accuracy.high, "tokens": self.tokens,
            "scores": list(self.score) or None, "values": dict(self.values) or None,
            "value_shares": {value: list(share) for value, share in self.value_shares.items()} or None,
        }  # fmt: skip

    @property
    def value_shares(self) -> dict[str, tuple[float, float, float]]:
        """How often each choice is the prediction, as a share of the covered, with its interval of 95 %."""
        ends = {value: wilson(count, self.covered) for value, count in self.values.items()}
        return {
            value: (_share(count, self.covered), ends[value].low, ends[value].high)
            for value, count in self.values.items()
        }

    @property
    def coverage(self) -> float:
        return _share(self.covered, self.rows)


@dataclass(frozen=True, slots=True)
class AuditedSlice:
    """A group of rows, and what is said of it.

    column: of the list.
    value: what the column holds there; None where it holds nothing.
    figures: of the group.
    tokens_ratio: its tokens, as a multiple of the list's median; None where no model was asked.
    verdict: pass, fail or not enough data.
    why: a sentence for each thing that is too far apart, or not known.
    """

    column: str
    value: str | None
    figures: SliceFigures
    tokens_ratio: float | None
    verdict: FairVerdict
    why: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The group as people write it."""
        return f"{self.column}={'(none)' if self.value is None else self.value}"

    def to_json(self) -> dict[str, Any]:
        return {
            "column": self.column, "value": self.value, **self.figures.to_json(), "tokens_ratio": self.tokens_ratio,
            "verdict": self.verdict, "why": list(self.why),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _ComparedShare:
    """One share of a group that was compared.

    slice: the place of the group.
    too_far: whether it is beyond its limit.
    p: how likely chance alone puts it so far from the others.
    message: what is too far, as a sentence.
    """

    slice: int
    too_far: bool
    p: float
    message: str


def judge_slices(
    slices: Sequence[tuple[str, str | None, SliceFigures]], whole: SliceFigures, limits: AuditLimits
) -> tuple[AuditedSlice, ...]:
    """A verdict on each group. What is beyond a limit fails if it is more than chance; else there is not enough data."""
    findings = [
        finding
        for place, (_, _, figures) in enumerate(slices)
        if figures.rows >= limits.least_rows
        for finding in _compared(place, figures, whole, limits)
    ]
    shown = shown_together([finding.p for finding in findings])
    beyond = [(finding, sure) for finding, sure in zip(findings, shown, strict=True) if finding.too_far]
    return tuple(
        _judged(column, value, figures, whole, limits, [each for each in beyond if each[0].slice == place])
        for place, (column, value, figures) in enumerate(slices)
    )


def verdict_of(verdicts: Iterable[FairVerdict]) -> FairVerdict:
    """One for all: fail if any fails, pass only if all do and there is one."""
    found = set(verdicts)
    if FairVerdict.FAIL in found:
        return FairVerdict.FAIL
    return FairVerdict.PASS if found == {FairVerdict.PASS} else FairVerdict.UNKNOWN


def _compared(place: int, own: SliceFigures, whole: SliceFigures, limits: AuditLimits) -> Iterator[_ComparedShare]:
    least = limits.coverage_ratio * whole.coverage
    said = f"coverage {own.coverage:.1%}, below {limits.coverage_ratio:g} of {whole.coverage:.1%}"
    yield _ComparedShare(place, own.coverage < least, _p(own.covered, own.rows, whole.covered, whole.rows), said)
    failures, all_failures = _share(own.failed, own.rows), _share(whole.failed, whole.rows)
    said = f"failures {failures:.1%}, more than {limits.failure_gap:g} above {all_failures:.1%}"
    too_many = failures - all_failures > limits.failure_gap
    yield _ComparedShare(place, too_many, _p(own.failed, own.rows, whole.failed, whole.rows), said)
    if own.golden >= limits.least_rows:
        accuracy, of_all = _share(own.right, own.golden), _share(whole.right, whole.golden)
        said = f"accuracy {accuracy:.1%}, more than {limits.accuracy_gap:g} below {of_all:.1%}"
        too_low = of_all - accuracy > limits.accuracy_gap
        yield _ComparedShare(place, too_low, _p(own.right, own.golden, whole.right, whole.golden), said)


def _judged(
    column: str,
    value: str | None,
    own: SliceFigures,
    whole: SliceFigures,
    limits: AuditLimits,
    beyond: Sequence[tuple[_ComparedShare, bool]],
) -> AuditedSlice:
    failed = [finding.message for finding, sure in beyond if sure]
    unsure = [f"{finding.message}, which may be chance" for finding, sure in beyond if not sure]
    if own.rows < limits.least_rows:
        unsure.append(f"fewer than {limits.least_rows} rows")
    elif whole.golden and own.golden < limits.least_rows:
        unsure.append(f"{own.golden} golden rows, fewer than {limits.least_rows}: accuracy is not known")
    verdict = FairVerdict.FAIL if failed else FairVerdict.UNKNOWN if unsure else FairVerdict.PASS
    ratio = own.tokens / whole.tokens if own.tokens and whole.tokens else None
    return AuditedSlice(column, value, own, ratio, verdict, (*failed, *unsure))


def _p(part: int, whole: int, all_parts: int, all_rows: int) -> float:
    """Of a group's share against that of the rows outside it."""
    return shares_p(part, whole, all_parts - part, all_rows - whole)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _ends(interval: Interval) -> list[float]:
    return [interval.low, interval.high]
