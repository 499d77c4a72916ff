"""When most rows of a run fail, it stops, and says why they do: the rest would fail, too."""

from __future__ import annotations

from collections.abc import Mapping

from batchinfer.core.reasons import advice, ranked
from batchinfer.core.records import Counts
from batchinfer.errors import Stopped
from batchinfer.job.spec import OnErrorsSpec
from batchinfer.pipeline.progress import Progress
from batchinfer.pipeline.stop import HOW_TO_GO_ON


def too_many(job: str, limits: OnErrorsSpec, progress: Progress) -> Stopped | None:
    """The request to stop, if so large a share of what is finished failed."""
    if not _is_too_many(limits, progress.failed, progress.done):
        return None
    share = f"{progress.failed:,} of the {progress.done:,} rows that are finished failed"
    return _stopped(f"Stopped early: {share}", job, progress.reasons, HOW_TO_GO_ON)


def mostly_bad(job: str, limits: OnErrorsSpec, counts: Counts, reasons: Mapping[str, int]) -> Stopped | None:
    """The same for a list of which so many rows cannot be asked at all, before the model is loaded. reasons: why they cannot."""
    if not _is_too_many(limits, counts.bad, counts.rows):
        return None
    share = f"{counts.bad:,} of the {counts.rows:,} rows in the list are bad"
    return _stopped(f"Stopped before the model was asked: {share}", job, reasons, "Then run the same command again.")


def _is_too_many(limits: OnErrorsSpec, failed: int, finished: int) -> bool:
    return finished >= limits.after and failed >= limits.stop_at * finished


def _stopped(said: str, job: str, reasons: Mapping[str, int], next_step: str) -> Stopped:
    cause = advice(job, ranked(reasons))
    fix = f"{cause[0].lower()}{cause[1:]} {next_step} on_errors in the job file says when a run stops."
    return Stopped(said, fix=fix)
