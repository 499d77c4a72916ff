"""How long a model takes for so many prompts, by the runs that asked it here, whether alone or beside another."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batchinfer.cache.store import Store

RUNS = 5  # the newest that asked a model tell its rate
Reports = Sequence[Mapping[str, Any]]


def run_reports(store: Store) -> Reports:
    """What runs said at their end, the newest first."""
    return [run.report for run in store.runs()]


def seconds_of(reports: Reports, model: str, count: int | None, *, alone: bool = False) -> float | None:
    """Loading the model, and so many prompts at the median rate; None without a run that asked it, or without a count.

    model: its label. alone: whether the job has no other, so that runs of an older program, which name none, were of it, too.
    """
    if not count:
        return None if count is None else 0.0
    runs = list(_figures(reports, model, alone=alone))[:RUNS]
    if not runs:
        return None
    load, rate = (statistics.median(run[name] for run in runs) for name in ("engine_load_seconds", "rows_per_second"))
    return round(float(load + count / rate), 1)


def load_seconds(reports: Reports, model: str) -> list[float]:
    """Seconds of the newest runs that asked a model beside generation, and beside waiting for devices.

    Of runs of older programs, and of those of two models, the model's loading is all that is known; where there are none,
    that of evaluations.
    """
    found = [
        max(
            run["engine_load_seconds"],
            (run.get("seconds") or 0.0) - run.get("generation_seconds", float("inf")) - run.get("waiting_seconds", 0.0),
        )
        for run in list(_figures(reports, model, alone=True))[:RUNS]
    ]
    return found or [report["engine_load_seconds"] for report in reports if _loaded_aside(report, model)][:RUNS]


def _loaded_aside(report: Mapping[str, Any], model: str) -> bool:
    """Whether an evaluation loaded a model."""
    return "arm" in report and report.get("model") == model and bool(report.get("engine_load_seconds"))


def _figures(reports: Reports, model: str, *, alone: bool) -> Iterator[Mapping[str, Any]]:
    """What runs say of a model that they asked."""
    for report in reports:
        shared = report.get("cascade")
        parts = [report] if shared is None else [shared["small"], shared["large"]]
        for part in parts:
            named = part.get("model")
            if (
                part.get("rows_per_second")
                and part.get("generated", 1)
                and (named == model or (alone and shared is None and named is None))
            ):
                yield part
