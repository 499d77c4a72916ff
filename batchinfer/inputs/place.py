"""Where a query list comes from, in the words that versions record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from batchinfer.core.clock import shown
from batchinfer.core.files import os_errors, real_path
from batchinfer.inputs.list_file import ListFile
from batchinfer.job.reader import Job

UPSTREAM, QUERY = "the job ", "the query "  # what a place begins with that is no path


@dataclass(frozen=True, slots=True)
class ListFacts:
    """Of what a list was made; kept in the manifest.

    place: where it came from, as versions record it.
    found_by: the path of the date, or the file, where one was chosen, or the query; None where the place says it.
    files: how many there are; None for a query.
    bytes: of them together; None for a query.
    modified: when the newest of them was written, by its time stamp, in UTC; None for a query.
    """

    place: str
    found_by: str | None
    files: int | None = None
    bytes: int | None = None
    modified: str | None = None

    @classmethod
    def of(cls, files: Sequence[ListFile], place: str) -> Self:
        """Raises StoreError for a file that is gone."""
        found_by = files[0].found_by
        if found_by is not None and found_by.startswith(QUERY):
            return cls(place, found_by)
        states = []
        for file in files:
            with os_errors(file.original):
                states.append(file.original.stat())
        newest = max(int(state.st_mtime) for state in states)
        modified = shown(datetime.fromtimestamp(newest, UTC))
        return cls(place, found_by, len(states), sum(state.st_size for state in states), modified)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.found_by or self.place,
            "files": self.files,
            "bytes": self.bytes,
            "modified": self.modified,
        }


def list_place(job: Job, instead: Path | None) -> str:
    """The job's own path or query as its file has it, or the job that it is chained to; or the list in its stead, absolute."""
    own = job.spec.input
    if instead is None:
        return query_place(job) if own.sql is not None else own.path if own.path is not None else f"{UPSTREAM}{own.job}"
    if own.path is not None and real_path(job.folder / own.path) == real_path(instead):
        return own.path
    return str(instead.absolute())


def query_place(job: Job) -> str:
    """The job's query, as its file has it, on one line."""
    return f"{QUERY}{' '.join((job.spec.input.sql or '').split())}"


def is_one_place(job: Job, place: str, other: str) -> bool:
    """Whether two places are one: the same words, or two paths of one file or folder."""
    if place == other or any(one.startswith((UPSTREAM, QUERY)) for one in (place, other)):
        return place == other
    return real_path(job.folder / place) == real_path(job.folder / other)
