"""Where a query list comes from, in the words that versions record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from batchinfer.core.clock import shown
from batchinfer.inputs.list_file import ListFile
from batchinfer.job.reader import Job

UPSTREAM, QUERY = "the job ", "the query "  # what a place begins with that is no path


@dataclass(frozen=True, slots=True)
class ListFacts:
    """Of what a list was made; kept in the manifest.

    name: where it came from; the path of the date, or the file, where one was chosen.
    files: how many there are.
    bytes: of them together.
    modified: when the newest of them was written, by its time stamp, in UTC.
    """

    name: str
    files: int
    bytes: int
    modified: str

    @classmethod
    def of(cls, files: Sequence[ListFile], place: str) -> Self:
        """place: where the list comes from, as versions record it. Raises OSError."""
        states = [file.original.stat() for file in files]
        newest = max(state.st_mtime for state in states)
        name = files[0].found_by or place
        return cls(
            name, len(files), sum(state.st_size for state in states), shown(datetime.fromtimestamp(int(newest), UTC))
        )


def list_place(job: Job, instead: Path | None) -> str:
    """The job's own path or query as its file has it, or the job that it is chained to; or the list in its stead, absolute."""
    own = job.spec.input
    if instead is None:
        return query_place(job) if own.sql is not None else own.path if own.path is not None else f"{UPSTREAM}{own.job}"
    if own.path is not None and (job.folder / own.path).resolve() == instead.resolve():
        return own.path
    return str(instead.absolute())


def query_place(job: Job) -> str:
    """The job's query, as its file has it, on one line."""
    return f"{QUERY}{' '.join((job.spec.input.sql or '').split())}"


def is_one_place(job: Job, place: str, other: str) -> bool:
    """Whether two places are one: the same words, or two paths of one file or folder."""
    if place == other or any(one.startswith((UPSTREAM, QUERY)) for one in (place, other)):
        return place == other
    return (job.folder / place).resolve() == (job.folder / other).resolve()
