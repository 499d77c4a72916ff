"""Checks on a candidate version: may it be served? Pure: figures in, verdicts out."""

from __future__ import annotations

from dataclasses import dataclass

from batchinfer.core.records import Check
from batchinfer.job.spec import GateSpec


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


def judge(spec: GateSpec, figures: Figures) -> list[Check]:
    """All checks of the job's gate, passed or not."""
    checks = [
        _least("coverage", spec.coverage, figures.covered, figures.keys, "keys have a prediction"),
        _most("failures", spec.failures, figures.failed, figures.attempted, "prompts and bad rows failed"),
        Check(
            "rows", figures.entries, spec.rows, figures.entries >= spec.rows,
            f"{figures.entries:,} entries would be served (at least {spec.rows:,} wanted)",
        ),
    ]  # fmt: skip
    if figures.served:
        checks += [
            _most("shrink", spec.shrink, figures.missing, figures.served, "served entries are gone"),
            _most("changed", spec.changed, figures.changed, figures.served, "served values differ"),
            _most("carried", spec.carried, figures.carried, figures.entries, "entries are kept from the version before"),
        ]  # fmt: skip
    if spec.reviewed != "none":
        which = "entries of the model" if spec.reviewed == "all" else "new or changed entries of the model"
        checks.append(_most("reviewed", 0.0, figures.unseen, figures.to_review, f"{which} await review"))
    if spec.golden is not None:
        checks.append(_least("golden", spec.golden.accuracy, figures.right, figures.golden, "golden rows are right"))
    return checks


def _least(name: str, limit: float, part: int, whole: int, what: str) -> Check:
    share = _share(part, whole)
    message = f"{part:,} of {whole:,} {what} ({share:.1%}; at least {limit:.1%} wanted)"
    return Check(name, share, limit, share >= limit, message)


def _most(name: str, limit: float, part: int, whole: int, what: str) -> Check:
    share = _share(part, whole)
    message = f"{part:,} of {whole:,} {what} ({share:.1%}; at most {limit:.1%} allowed)"
    return Check(name, share, limit, share <= limit, message)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
