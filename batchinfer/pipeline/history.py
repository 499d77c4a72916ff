"""What earlier runs left in the cache: their reports, and the rows without a prediction."""

from __future__ import annotations

from dataclasses import dataclass

from batchinfer.cache.schema import FailureRow, RunRow
from batchinfer.cache.store import Store
from batchinfer.core.home import JobData
from batchinfer.core.reasons import FailureReason, ranked
from batchinfer.errors import NotFound
from batchinfer.pipeline.report import figure


@dataclass(frozen=True, slots=True)
class Failures:
    """The rows and prompts without a prediction.

    rows: the newest.
    reasons: of all, the most frequent first.
    remaining: how many more had none when the last run ended; None where it did not say so.
    """

    rows: tuple[FailureRow, ...]
    reasons: tuple[FailureReason, ...]
    remaining: int | None

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(reason.count for reason in self.reasons)


def runs(data: JobData) -> list[RunRow]:
    """All runs of a job, newest first. Raises NotFound for one that was never run."""
    store = _existing(data)
    if not store.last_run_id():  # imports and publishing make a cache, too
        raise _never_run(data)
    return store.runs()


def failures(data: JobData, limit: int | None) -> Failures:
    """Rows without a prediction, at most so many. Raises NotFound for a job that was never run, if it has none either."""
    store = _existing(data)
    counts, past = store.failure_reasons(), [run for run in store.runs() if not run.status.is_aside]
    if not counts and not past:
        raise _never_run(data)
    remaining = figure(past[0].report, "remaining") if past else 0
    return Failures(tuple(store.failures(limit)), ranked(counts), remaining)


def _existing(data: JobData) -> Store:
    data.require()
    store = Store(data.cache)
    if not store.path.exists():
        raise _never_run(data)
    store.create_or_migrate()
    return store


def _never_run(data: JobData) -> NotFound:
    return NotFound(
        f"The job {data.name} has not been run yet in {data.root}",
        fix="batchinfer run does it, or choose another data folder with --home.",
    )
