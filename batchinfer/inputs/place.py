"""Where a query list comes from, in the words that versions record."""

from __future__ import annotations

from pathlib import Path

from batchinfer.job.reader import Job


def list_place(job: Job, instead: Path | None) -> str:
    """The job's own path as its file has it, or the job that it is chained to; else the absolute path of the list in its stead."""
    own = job.spec.input
    if instead is None:
        return own.path if own.path is not None else f"the job {own.job}"
    if own.path is not None and (job.folder / own.path).resolve() == instead.resolve():
        return own.path
    return str(instead.absolute())
