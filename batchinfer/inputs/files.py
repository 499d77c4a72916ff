"""The files of a query list: the job's own, those given with --input, or made from another job's version."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from batchinfer.core.home import JobData
from batchinfer.errors import InputError
from batchinfer.inputs.parquet import ListSource
from batchinfer.inputs.upstream import Upstream, write_list
from batchinfer.job.reader import Job


def job_files(job: Job) -> list[Path]:
    """The files of a job's own list. Raises InputError if there is none, SpecError if one lies where it may not."""
    field = "input.path"
    files = find_files(job.inside(field, job.spec.input.path or ""))
    return [job.inside(field, str(file)) for file in files]  # a folder or glob may hold links that lead out


def find_files(path: Path, advice: str = "check input.path, or name the list with --input") -> list[Path]:
    """The Parquet files that a path, a folder or a glob names, sorted. Raises InputError if there is none."""
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(file for file in path.rglob("*.parquet") if file.is_file())
        problem = f"The folder {path} holds no .parquet file."
    else:
        folder = next(
            (parent for parent in path.parents if parent.is_dir()), Path(path.anchor)
        )  # no pattern, but a name
        found = sorted(file for file in folder.glob(str(path.relative_to(folder))) if file.is_file())
        problem = f"There is no file {path}: {advice}."
    if not found:
        raise InputError(problem)
    return found


def list_files(
    job: Job, data: JobData, instead: Path | None, scratch: Path, *, rows: bool = True
) -> tuple[list[Path], Upstream | None]:
    """The files of a job's list, and the version that they come from if the job is chained.

    instead: the list in place of the job's own. scratch: a folder for the list of a chained job. rows: False for those
    who only look at the columns; such a list is not whole. Raises InputError, SpecError or StoreError.
    """
    if instead is not None:
        return find_files(instead), None
    if job.spec.input.job is None:
        return job_files(job), None
    path, upstream = write_list(job, data, scratch, rows=rows)
    return [path], upstream


def list_columns(
    job: Job, data: JobData, instead: Path | None = None, used: Sequence[str] = ()
) -> tuple[ListSource, Upstream | None]:
    """The list's columns and their kinds, for those who read no rows; and the version that they come from if the job is chained.

    used: columns other than those of the key. Raises InputError, SpecError or StoreError.
    """
    with tempfile.TemporaryDirectory() as folder:
        files, upstream = list_files(job, data, instead, Path(folder), rows=False)
        return ListSource(files, job.spec.input, used), upstream
