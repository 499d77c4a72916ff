"""Checks on a candidate version: may it be served? Pure: figures in, verdicts out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from batchinfer.core.records import Check
from batchinfer.errors import counted
from batchinfer.job.spec import GateSpec
from batchinfer.publish.fairness import Fairness, judge_groups
from batchinfer.publish.inference import Estimated, Precision, verdicts_wanted
from batchinfer.versions.calibration import ScoreSource

MOST_GOLDEN = 1_000_000  # rows that somebody could make


@dataclass(frozen=True, slots=True)
class Figures:
    """What the gate looks at.

    keys: distinct lookup keys of the list.
    covered: those of the keys with a prediction.
    attempted: prompts and bad rows.
    failed: those of the attempted without an answer.
    entries: of the candidate.
    carried: those of the entries kept from the version before.
    served: entries of the version served now.
    missing: those of the served ones that the candidate lacks.
    changed: those of the served ones that the candidate answers otherwise.
    to_review: entries that people should have reviewed.
    unseen: those of to_review that nobody has.
    golden: rows whose answer is known.
    right: those of the golden rows answered so.
    emptied: entries with nothing in their lists, which are predictions, too.
    """

    keys: int
    covered: int
    attempted: int
    failed: int
    entries: int
    carried: int = 0
    served: int = 0
    missing: int = 0
    changed: int = 0
    to_review: int = 0
    unseen: int = 0
    golden: int = 0
    right: int = 0
    emptied: int = 0


@dataclass(frozen=True, slots=True)
class _ShareWords:
    """How a share of things is said.

    thing, things: what they are called.
    does, do: what is true of the share.
    """

    thing: str
    things: str
    does: str
    do: str

    def said(self, part: int, whole: int) -> str:
        """Such as: 1 of 20 keys has a prediction."""
        return f"{part:,} of {counted(whole, self.thing, self.things)} {self.does if 1 in (part, whole) else self.do}"


_KEYS = _ShareWords("key", "keys", "has a prediction", "have a prediction")
_PROMPTS = _ShareWords("prompt or bad row", "prompts and bad rows", "failed", "failed")
_GONE = _ShareWords("served entry", "served entries", "is gone", "are gone")
_CHANGED = _ShareWords("served value", "served values", "differs", "differ")
_CARRIED = _ShareWords("entry", "entries", "is kept from the version before", "are kept from the version before")
_UNSEEN = _ShareWords("entry of the model", "entries of the model", "awaits review", "await review")
_NEWLY_UNSEEN = _ShareWords(
    "new or changed entry of the model", "new or changed entries of the model", "awaits review", "await review"
)
_GOLDEN = _ShareWords("golden row", "golden rows", "is right", "are right")


def judge(
    spec: GateSpec,
    figures: Figures,
    fairness: Fairness | None = None,
    precision: Precision | None = None,
    recall: Estimated | None = None,
    calibration: ScoreSource = ScoreSource(),  # noqa: B008 - it is frozen
) -> list[Check]:
    """All checks of the job's gate, passed or not.

    fairness: of groups, where the gate asks for an audit. precision: of the model's predictions, and recall: of what golden
    rows must contain, where it asks for them. calibration: what scores are made by.
    """
    checks = [
        _coverage(spec.coverage, figures),
        _most("failures", spec.failures, figures.failed, figures.attempted, _PROMPTS),
        Check(
            "rows", figures.entries, spec.rows, figures.entries >= spec.rows,
            f"{counted(figures.entries, 'entry', 'entries')} would be served (at least {spec.rows:,} wanted)",
        ),
    ]  # fmt: skip
    if figures.served:
        checks += [
            _most("shrink", spec.shrink, figures.missing, figures.served, _GONE),
            _most("changed", spec.changed, figures.changed, figures.served, _CHANGED),
            _most("carried", spec.carried, figures.carried, figures.entries, _CARRIED),
        ]  # fmt: skip
    if spec.reviewed != "none":
        which = _UNSEEN if spec.reviewed == "all" else _NEWLY_UNSEEN
        checks.append(_most("reviewed", 0.0, figures.unseen, figures.to_review, which))
    if spec.golden is not None:
        checks.append(_least("golden", spec.golden.accuracy, figures.right, figures.golden, _GOLDEN))
    if spec.audit:
        checks.append(judge_groups(fairness or Fairness()))
    if spec.precision is not None and precision is not None:
        checks.append(_precise(spec.precision, precision))
    if spec.recall is not None and recall is not None:
        checks.append(_whole(spec.recall, recall))
    if spec.calibration is not None:
        checks.append(_calibrated(spec.calibration, calibration))
    return checks


def _precise(limit: float, found: Precision) -> Check:
    """The lower end of the interval must reach the limit; where it does not, how many verdicts might."""
    low = found.low
    passed = found.estimate is not None and low >= limit
    if found.estimate is None:
        message = f"{found.problem} (a lower end of at least {limit:.1%} wanted"
    elif not found.verdicts:
        message = f"all that is served ({found.rows:,} {found.of}) is there only because people said so (at least {limit:.1%} wanted"
    else:
        message = (
            f"{found.estimate:.1%} of the {found.of} are right by {counted(found.verdicts, 'verdict')}, "
            f"95 % interval {low:.1%} to {found.high:.1%} (a lower end of at least {limit:.1%} wanted"
        )
    return Check(
        "precision",
        low,
        limit,
        passed,
        message + ("" if passed else _missing(limit, found)) + ")",
        used=found.to_json(),
    )


def _whole(limit: float, found: Estimated) -> Check:
    """The lower end of the recall's interval must reach the limit; where it does not, how many golden rows might."""
    low, high, rows = found.interval.low, found.interval.high, found.verdicts
    message = (
        f"{found.value:.1%} of what {counted(rows, 'golden row')} must contain is served, 95 % interval {low:.1%} to {high:.1%} "
        f"(a lower end of at least {limit:.1%} wanted"
    )
    if low < limit:
        wanted = verdicts_wanted(limit, found, MOST_GOLDEN)
        message += (
            "; more golden rows would not help"
            if wanted is None
            else f"; about {counted(wanted, 'more golden row')} might do"
        )
    used = {"estimate": found.value, "low": low, "high": high, "rows": rows}
    return Check("recall", low, limit, low >= limit, f"{message})", used=used)


def _calibrated(limit: float, found: ScoreSource) -> Check:
    """How far scores are off the share of right ones, on verdicts that were held out."""
    model = found.model
    if model is None:
        message = (
            f"scores are the model's own, since {found.problem} (calibrated ones wanted; run batchinfer calibrate JOB)"
        )
        return Check("calibration", 1.0, limit, passed=False, message=message)
    message = (
        f"scores are {model.ece:.1%} off the share of right ones, on average over {counted(model.verdicts, 'verdict')} that were held "
        f"out, {model.excess:.1%} beyond chance (at most {limit:.1%} allowed)"
    )
    used = {"ece": model.ece, "chance": model.chance, "auc": model.auc, "digest": model.digest}
    return Check("calibration", model.excess, limit, model.excess <= limit, message, used=used)


def _missing(limit: float, found: Precision) -> str:
    """What a precision that falls short needs, as the end of a sentence."""
    wanted = found.wanted(limit)
    if wanted is None:
        return "; more verdicts would not help"
    stale = found.rows - found.covered
    new = f" since no sample stands for {counted(stale, 'row')} of {found.rows:,}," if stale and found.samples else ""
    return f";{new} about {counted(wanted, 'more verdict')} might do: batchinfer precision JOB --sample {wanted} --out FILE"


def _coverage(least: float, figures: Figures) -> Check:
    check = _least("coverage", least, figures.covered, figures.keys, _KEYS)
    if not figures.emptied:
        return check
    said = counted(figures.emptied, "prediction has", "predictions have")
    return replace(check, message=f"{check.message}; {said} nothing left in the list after output.steps")


def _least(name: str, limit: float, part: int, whole: int, what: _ShareWords) -> Check:
    share = _share(part, whole)
    message = f"{what.said(part, whole)} ({share:.1%}; at least {limit:.1%} wanted)"
    return Check(name, share, limit, share >= limit, message)


def _most(name: str, limit: float, part: int, whole: int, what: _ShareWords) -> Check:
    share = _share(part, whole)
    message = f"{what.said(part, whole)} ({share:.1%}; at most {limit:.1%} allowed)"
    return Check(name, share, limit, share <= limit, message)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
