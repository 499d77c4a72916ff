"""What a run or a publishing says at its end: counts, rates, and why the gate refused."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import Any

from batchinfer.inputs.query_list import Plan
from batchinfer.pipeline.progress import Progress
from batchinfer.publish.release import Release

SMALL_MASS = 0.1


Report = dict[str, Any]


def gate_sentence(name: str, outcome: Release) -> str:
    """Which checks failed, where the candidate lies, and what to do with it. name: the job's."""
    failed = "; ".join(f"{check.name}: {check.says}" for check in outcome.failed_checks)
    candidate = outcome.rejected.name if outcome.rejected else ""
    if any(check.name == "reviewed" for check in outcome.failed_checks):
        failed += f" (batchinfer review {name} --out FILE.csv writes them, batchinfer import takes the verdicts in)"
    force = f"to publish it all the same: batchinfer publish {name} --candidate {candidate} --force --why TEXT"
    if not outcome.contents.served:  # there is nothing to compare it with
        return f"The gate refused the new version: {failed}. The candidate lies in {outcome.rejected}; {force}"
    return (
        f"The gate refused the new version: {failed}. What was served before still is; the candidate lies in {outcome.rejected}. "
        f"Compare it with batchinfer diff {name} current {candidate}; {force}"
    )


def figures(plan: Plan, tally: Progress, outcome: Release | None) -> Report:
    """The counts and rates of a report. rows = bad + duplicates + unique; unique = hits + generated + failures + left."""
    counts = plan.counts
    report: Report = {
        "rows": counts.rows, "misses": counts.misses, "bad": counts.bad, "duplicates": counts.duplicates,
        "unique": counts.unique, "hits": counts.hits,
        "generated": tally.generated, "failures": counts.failed + tally.failures,
        "left": counts.to_generate - tally.done,
        "carried": outcome.contents.carried if outcome else 0,
        "version": outcome.version if outcome else None,
        "entries": outcome.contents.entries if outcome else None,
        "candidate": outcome.rejected.name if outcome and outcome.rejected else None,
        "unchanged": bool(outcome and outcome.contents.same),
        "pinned": outcome.pinned if outcome else None,
        "match": outcome.match if outcome else None,
        "gate": [asdict(check) for check in outcome.checks] if outcome else [],
        "engine_load_seconds": _rounded(tally.load_seconds),
        "rows_per_second": _rounded(tally.rate(tally.done)),
        "prompt_tokens_per_second": _rounded(tally.rate(tally.prompt_tokens)),
        "output_tokens_per_second": _rounded(tally.rate(tally.output_tokens)),
        "prefix_saving": _rounded(tally.prefix_saving),
    }  # fmt: skip
    if tally.masses:
        report["mass"] = _mass_report(tally.masses)
    return report


def _mass_report(masses: list[float]) -> dict[str, float]:
    """How the probability that the model gave all choices together is distributed over the rows."""
    ordered = sorted(masses)
    return {
        "p05": round(ordered[int(0.05 * (len(ordered) - 1))], 4),
        "median": round(statistics.median(ordered), 4),
        "below_0.1": sum(mass < SMALL_MASS for mass in ordered),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
