"""When most rows of a run fail, it stops, and says why they do: the rest would fail, too."""

from __future__ import annotations

from collections.abc import Mapping

from batchinfer.core.reasons import advice, ranked
from batchinfer.core.records import Counts
from batchinfer.errors import CutShort, Stopped, counted
from batchinfer.job.spec import OnErrorsSpec
from batchinfer.pipeline.progress import Progress
from batchinfer.pipeline.stop import HOW_TO_GO_ON


def too_many(limits: OnErrorsSpec, progress: Progress) -> bool:
    """Whether so large a share of what is finished failed that the run is to stop."""
    return _is_too_many(limits, progress.failed, progress.done)


def stopped_early(job: str, progress: Progress) -> Stopped:
    """Why a run stopped, by its figures once what was in flight is finished, too."""
    share = _share(progress.failed, progress.done)
    return _stopped(f"Stopped early: {share} that are finished failed.", job, progress.reasons, HOW_TO_GO_ON)


def mostly_bad(job: str, limits: OnErrorsSpec, counts: Counts, reasons: Mapping[str, int]) -> Stopped | None:
    """The same for a list of which so many rows cannot be asked at all, before the model is loaded. reasons: why they cannot."""
    if not _is_too_many(limits, counts.bad, counts.rows):
        return None
    share = _share(counts.bad, counts.rows)
    return _stopped(
        f"Stopped before the model was asked: {share} in the list are bad.",
        job,
        reasons,
        "Then run the same command again.",
    )


def _share(part: int, whole: int) -> str:
    return f"all {counted(whole, 'row')}" if part == whole else f"{part:,} of the {counted(whole, 'row')}"


def _is_too_many(limits: OnErrorsSpec, failed: int, finished: int) -> bool:
    return finished >= limits.after and failed >= limits.stop_at * finished


def _stopped(said: str, job: str, reasons: Mapping[str, int], next_step: str) -> Stopped:
    cause = advice(job, ranked(reasons))
    fix = f"{cause} {next_step} on_errors in the job file says when a run stops."
    return CutShort(said, fix=fix)
