"""The last run of a job as a text file for Prometheus, which node_exporter's textfile collector reads.

$BATCHINFER_HOME/.metrics/batchinfer_<job>.prom
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from batchinfer.alerts.attempts import AttemptStatus, LastAttempt
from batchinfer.alerts.standing import Standing
from batchinfer.core.files import os_errors, read_small, write_atomically
from batchinfer.core.home import JobData

FOLDER = ".metrics"  # no job's name begins with a dot
FIGURES = (  # name, help, field of a run's report
    ("rows", "Rows of the list of the last run.", "rows"),
    ("generated", "Predictions that the last run made.", "generated"),
    ("failed", "Prompts without a prediction after the last run.", "failed"),
    ("seconds", "How long the last run took.", "seconds"),
)


def metrics_file(data: JobData) -> Path:
    """Where a job's file lies."""
    return data.root / FOLDER / f"batchinfer_{data.name}.prom"


def write_metrics_file(data: JobData, standing: Standing, report: Mapping[str, Any]) -> None:
    """Replaces the file as a whole. report: of the run, as far as there is one. Raises StoreError."""
    path = metrics_file(data)
    with os_errors(path):
        path.parent.mkdir(exist_ok=True)
    write_atomically(path, "".join(_lines(standing, report)).encode())


def refresh_metrics_file(data: JobData, standing: Standing) -> None:
    """Brings a file up to date that a run wrote, where that died since, or a person published: its figures stay. Raises StoreError."""
    path = metrics_file(data)
    figures = {f"batchinfer_run_{name}": field for name, _, field in FIGURES}
    try:
        before = read_small(path).decode()
        kept = {
            line.partition("{")[0]: line.split()[-1] for line in before.splitlines() if line.startswith(tuple(figures))
        }
        report = {figures[metric]: float(value) for metric, value in kept.items() if metric in figures}
    except (OSError, ValueError, IndexError):  # no run wrote one yet; or it is damaged, and the next one writes it
        return
    if (after := "".join(_lines(standing, report))) != before:
        write_atomically(path, after.encode())


def _lines(standing: Standing, report: Mapping[str, Any]) -> Iterator[str]:
    for name, text, value in _gauges(standing, report):
        if value is not None:
            metric = f"batchinfer_run_{name}"
            yield f'# HELP {metric} {text}\n# TYPE {metric} gauge\n{metric}{{job="{standing.job}"}} {value:.15g}\n'


def _gauges(standing: Standing, report: Mapping[str, Any]) -> Iterator[tuple[str, str, float | None]]:
    """Name, help and value of each; None where it is not known."""
    attempt, published = standing.attempt, standing.published
    yield "ended_timestamp_seconds", "When the last run ended.", None if attempt is None else _stamp(attempt.ended_at)
    yield "success", "1 if the last run ended well, 0 if it failed or its version was refused.", _success(attempt)
    yield (
        "troubles",
        "What is wrong since the last run that ended well: failed runs, refused versions.",
        len(standing.troubles),
    )
    yield "last_success_timestamp_seconds", "When the last run that ended well did so.", _stamp(standing.succeeded_at)
    yield "version", "The version that was published last.", None if published is None else published.version
    yield "version_timestamp_seconds", "When it was made.", None if published is None else _stamp(published.made_at)
    limits = [rule.stale_after.total_seconds() for rule in standing.rules if rule.stale_after is not None]
    yield "stale_after_seconds", "How long after a run that ended well the job is stale.", min(limits, default=None)
    for name, text, field in FIGURES:
        yield name, text, report.get(field)


def _success(attempt: LastAttempt | None) -> float | None:
    """None where a run was asked to stop, which is neither."""
    if attempt is None or attempt.status in (AttemptStatus.STOPPED, AttemptStatus.DECLINED, AttemptStatus.RUNNING):
        return None
    return float(attempt.status is AttemptStatus.DONE)


def _stamp(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
