"""Checks on a candidate version: may it be served? Pure: figures in, verdicts out."""

from __future__ import annotations

from dataclasses import dataclass

from batchinfer.spec import GateSpec


@dataclass(frozen=True, slots=True)
class Figures:
    """What the gate looks at.

    keys: distinct lookup keys of the list; covered: those with a prediction. asked: prompts and bad rows;
    failed: those of them without an answer. served: entries of the version served now; missing and
    changed: how many of them the candidate lacks, or answers otherwise.
    """

    keys: int
    covered: int
    asked: int
    failed: int
    served: int = 0
    missing: int = 0
    changed: int = 0


@dataclass(frozen=True, slots=True)
class Check:
    """One verdict. value and limit are shares from 0 to 1; `says` is a sentence."""

    name: str
    value: float
    limit: float
    passed: bool
    says: str


def judge(spec: GateSpec, figures: Figures) -> list[Check]:
    """All checks of the job's gate, passed or not."""
    coverage = _share(figures.covered, figures.keys)
    failures = _share(figures.failed, figures.asked)
    checks = [
        Check(
            "coverage", coverage, spec.coverage, coverage >= spec.coverage,
            f"{figures.covered:,} of {figures.keys:,} keys have a prediction ({coverage:.1%}; at least {spec.coverage:.1%} wanted)",
        ),
        Check(
            "failures", failures, spec.failures, failures <= spec.failures,
            f"{figures.failed:,} of {figures.asked:,} prompts and bad rows failed ({failures:.1%}; at most {spec.failures:.1%} allowed)",
        ),
    ]  # fmt: skip
    if figures.served:
        shrink, changed = _share(figures.missing, figures.served), _share(figures.changed, figures.served)
        checks += [
            Check(
                "shrink", shrink, spec.shrink, shrink <= spec.shrink,
                f"{figures.missing:,} of {figures.served:,} served entries are gone ({shrink:.1%}; at most {spec.shrink:.1%} allowed)",
            ),
            Check(
                "changed", changed, spec.changed, changed <= spec.changed,
                f"{figures.changed:,} of {figures.served:,} served values differ ({changed:.1%}; at most {spec.changed:.1%} allowed)",
            ),
        ]  # fmt: skip
    return checks


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
