"""What the service counts. Each worker counts in plain numbers of its own; the worker that answers /metrics sums them.

Counting must cost next to nothing on the hot path, so no lock and no shared memory is touched there. Every
second a worker writes its numbers into a file of its own in the server's run folder. The files of workers that
died stay until the server ends, so that no counter goes back.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from batchinfer.serve.registry import JobRegistry
from batchinfer.serve.worker_deaths import WorkerDeaths

BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)  # seconds
COUNTERS = (  # name, help
    ("hits", "Lookups that found a prediction, those in batches too."),
    ("misses", "Lookups that found none."),
    ("student_answers", "Misses that the version's student answered."),
    ("student_abstentions", "Misses that the version's student left unanswered."),
    ("texts", "Texts that were matched, those in batches too."),
    ("matches", "Matches that were found in them."),
    ("failed_loads", "Times that a worker could not open a version."),
    ("misses_dropped", "Misses that were not recorded, for want of room."),
)
GAUGES = (  # name, help, field of a JobStatus
    ("version", "The version that is served.", "version"),
    ("version_age_seconds", "Time since it was made.", "age_seconds"),
    ("entries", "Entries of the version that is served.", "entries"),
    ("pinned", "1 if a pin, not the newest publish, decides what is served.", "pinned"),
    ("degraded", "1 if something else is served than what should be.", "degraded"),
    (
        "student_checked",
        "Answers of the student before to live queries that the model has answered since.",
        "student_checked",
    ),
    ("student_right", "Those of them that the model gave, too.", "student_right"),
    ("stale", "1 if no run ended well for longer than the job's alerts allow.", "stale"),
    ("last_success_timestamp_seconds", "When the job's last successful run ended.", "last_success"),
)
LabelValues = tuple[str, ...]


class Series:
    """How long the requests of one kind took: counts between BOUNDS, and their sum in seconds."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def add(self, counts: Iterable[int], seconds: float) -> None:
        """Adds another worker's."""
        self.counts = [mine + other for mine, other in zip(self.counts, counts, strict=True)]
        self.seconds += seconds


class WorkerMetrics:
    """One worker's numbers.

    series: how long requests took, by job, route and status.
    counters: all others, by name and job.
    """

    def __init__(self) -> None:
        self.series: dict[LabelValues, Series] = defaultdict(Series)
        self.counters: dict[LabelValues, int] = defaultdict(int)

    def text(self) -> str:
        """The numbers, to be read by other workers."""
        return json.dumps(
            {
                "series": [[*labels, series.counts, series.seconds] for labels, series in list(self.series.items())],
                "counters": [[*labels, count] for labels, count in list(self.counters.items())],
            }
        )

    def forget(self, job: str) -> None:
        """Drops the numbers of a job that was removed."""
        for labels in [labels for labels in list(self.series) if labels[0] == job]:
            self.series.pop(labels, None)
        for labels in [labels for labels in list(self.counters) if labels[1] == job]:
            self.counters.pop(labels, None)

    def add(self, text: str) -> None:
        """Adds what another worker wrote."""
        content = json.loads(text)
        for *labels, counts, seconds in content["series"]:
            self.series[tuple(labels)].add(counts, seconds)
        for *labels, count in content["counters"]:
            self.counters[tuple(labels)] += count


def write_metrics(metrics: WorkerMetrics, folder: Path) -> None:
    """Writes a worker's numbers where the others find them. Raises OSError."""
    draft = folder / f".{os.getpid()}"
    draft.write_text(metrics.text(), encoding="utf-8")
    draft.replace(folder / f"{os.getpid()}.json")


def exposition(metrics: WorkerMetrics, folder: Path, run_folder: Path, registry: JobRegistry) -> bytes:
    """What /metrics answers: the numbers of all workers, and the state as this one sees it."""
    total = WorkerMetrics()
    total.add(metrics.text())
    for path in folder.glob("*.json"):
        if path.stem != str(os.getpid()):
            total.add(path.read_text(encoding="utf-8"))
    collectors = CollectorRegistry(auto_describe=False)
    collectors.register(_MetricsCollector(total, registry, WorkerDeaths.read(run_folder)))
    return generate_latest(collectors)


class _MetricsCollector(Collector):
    def __init__(self, total: WorkerMetrics, registry: JobRegistry, died: WorkerDeaths) -> None:
        self._total, self._registry, self._died = total, registry, died

    def collect(self) -> Iterator[Metric]:
        yield from self._requests()
        yield from self._counted()
        yield from self._versions()
        closed, why = (
            self._total.counters["connections_closed", ""],
            "Connections of clients that did not read, or said nothing.",
        )
        yield CounterMetricFamily("batchinfer_connections_closed", why, value=closed)
        dropped = self._total.counters["log_lines_dropped", ""]
        yield CounterMetricFamily(
            "batchinfer_log_lines_dropped", "Lines of logs that nobody read in time.", value=dropped
        )
        yield CounterMetricFamily("batchinfer_worker_deaths", "Workers that died.", value=self._died.deaths)
        held = "Workers that died young and wait before they serve again."
        yield GaugeMetricFamily("batchinfer_workers_held_back", held, value=self._died.held_back)

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("batchinfer_requests", "Requests answered.", labels=["job", "route", "status"])
        seconds = HistogramMetricFamily(
            "batchinfer_request_seconds", "How long an answer took, in seconds.", labels=["job", "route"]
        )
        latencies: dict[LabelValues, Series] = defaultdict(Series)
        for (job, route, status), series in sorted(self._total.series.items()):
            requests.add_metric([job, route, status], sum(series.counts))
            latencies[job, route].add(series.counts, series.seconds)
        for labels, series in latencies.items():
            seconds.add_metric(list(labels), _cumulated(series.counts), series.seconds)
        yield requests
        yield seconds

    def _counted(self) -> Iterator[Metric]:
        for name, text in COUNTERS:
            family = CounterMetricFamily(f"batchinfer_{name}", text, labels=["job"])
            for (counted, job), count in sorted(self._total.counters.items()):
                if counted == name:
                    family.add_metric([job], count)
            yield family

    def _versions(self) -> Iterator[Metric]:
        statuses = self._registry.statuses()
        for name, text, field in GAUGES:
            gauge = GaugeMetricFamily(f"batchinfer_{name}", text, labels=["job"])
            for status in statuses:
                if (value := getattr(status, field)) is not None:
                    gauge.add_metric([status.job], float(value))
            yield gauge


def _cumulated(counts: list[int]) -> list[tuple[str, float]]:
    rows, below = [], 0
    for bound, count in zip([*map(str, BOUNDS), "+Inf"], counts, strict=True):
        below += count
        rows.append((bound, float(below)))
    return rows
