"""The jobs of a data folder: which there are, and the removal of one."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from batchinfer.alerts.textfile import metrics_file
from batchinfer.core.files import os_errors, sync_folder
from batchinfer.core.home import JobData, job_names, require_folder
from batchinfer.errors import NotFound, StoreError
from batchinfer.versions import pointers
from batchinfer.versions.folders import folder_of
from batchinfer.versions.manifest import Manifest

GOING = ".going-"  # what the names of folders begin with that are being removed


@dataclass(frozen=True, slots=True)
class KnownJob:
    """A job that the data folder knows.

    job: its name.
    version: the version that is served; None if none is, or it cannot be told.
    entries: how many it has.
    bytes: the size of all files of the job.
    job_file: the job file that the name belongs to; None where versions were copied to.
    """

    job: str
    version: int | None
    entries: int | None
    bytes: int
    job_file: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RemovedJob:
    """A job that was removed from the data folder.

    job: its name.
    bytes: the size of its files.
    """

    job: str
    bytes: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def known_jobs(root: Path) -> list[KnownJob]:
    """All jobs of the data folder, by name. Raises NotFound where there is no folder, or no job in it."""
    require_folder(root)
    with os_errors(root):
        names = job_names(root)
    if not names:
        raise NotFound(
            f"There are no jobs in the data folder {root}",
            fix="batchinfer run makes them, or choose another data folder with --home.",
        )
    return [known_job(JobData(root, name)) for name in names]


def known_job(data: JobData) -> KnownJob:
    """One job, as far as its files can be read."""
    version = entries = job_file = None
    with contextlib.suppress(StoreError, NotFound):
        version = pointers.served(data).version
        entries = Manifest.read(folder_of(data, version)).rows
    with contextlib.suppress(StoreError):
        job_file = data.record().job_file
    return KnownJob(data.name, version, entries, _size(data.folder), job_file)


def remove_job(data: JobData) -> RemovedJob:
    """Removes all that the data folder has of a job: cache, versions, misses, logs. Raises NotFound or Busy.

    Services that run stop serving it: the mark tells them from a folder that is away for a while.
    """
    data.require()
    with data.run_lock(f"batchinfer jobs remove {data.name}"), data.versions_lock("batchinfer jobs remove"):
        size = _size(data.folder)
        with os_errors(data.folder):
            marks = data.removed_mark.parent
            marks.mkdir(exist_ok=True)
            data.removed_mark.touch()
            away = Path(tempfile.mkdtemp(prefix=GOING, dir=marks)) / data.name
            data.folder.rename(away)
            sync_folder(data.root)
            metrics_file(data).unlink(missing_ok=True)
    for left in marks.glob(f"{GOING}*"):  # also by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    return RemovedJob(data.name, size)


def _size(folder: Path) -> int:
    """The bytes of all files below a folder, but for those that come or go meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size if path.is_file() else 0
    return total
