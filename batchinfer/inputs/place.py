"""Where a query list comes from, in the words that versions record."""

from __future__ import annotations

from pathlib import Path

from batchinfer.job.reader import Job

UPSTREAM = "the job "  # what a place begins with that is no path


def list_place(job: Job, instead: Path | None) -> str:
    """The job's own path as its file has it, or the job that it is chained to; else the absolute path of the list in its stead."""
    own = job.spec.input
    if instead is None:
        return own.path if own.path is not None else f"{UPSTREAM}{own.job}"
    if own.path is not None and (job.folder / own.path).resolve() == instead.resolve():
        return own.path
    return str(instead.absolute())


def is_one_place(job: Job, place: str, other: str) -> bool:
    """Whether two places are one: the same words, or two paths of one file or folder."""
    if place == other or UPSTREAM in (place[: len(UPSTREAM)], other[: len(UPSTREAM)]):
        return place == other
    return (job.folder / place).resolve() == (job.folder / other).resolve()
