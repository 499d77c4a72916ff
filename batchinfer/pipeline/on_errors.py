"""When most rows of a run fail, it stops, and says why they do: the rest would fail, too."""

from __future__ import annotations

from batchinfer.core.reasons import advice, ranked
from batchinfer.errors import Stopped
from batchinfer.job.spec import OnErrorsSpec
from batchinfer.pipeline.progress import Progress
from batchinfer.pipeline.stop import HOW_TO_GO_ON


def too_many(job: str, limits: OnErrorsSpec, progress: Progress) -> Stopped | None:
    """The request to stop, if so large a share of what is finished failed."""
    if progress.done < limits.after or progress.failed < limits.stop_at * progress.done:
        return None
    share = f"{progress.failed:,} of the {progress.done:,} rows that are finished failed"
    cause = advice(job, ranked(progress.reasons))
    return Stopped(
        f"Stopped early: {share}",
        fix=f"{cause[0].lower()}{cause[1:]} {HOW_TO_GO_ON} on_errors in the job file says when a run stops.",
    )
