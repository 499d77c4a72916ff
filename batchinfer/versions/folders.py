"""Which versions and candidates a job has, and how a new one comes among them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from batchinfer.core.files import os_errors, sync_folder
from batchinfer.core.home import JobData
from batchinfer.errors import StoreError
from batchinfer.versions.layout import MANIFEST
from batchinfer.versions.snapshot import Snapshot

DRAFT = ".building-"  # what the names of unfinished folders begin with


def folder_of(data: JobData, version: int) -> Path:
    """Where a version lies."""
    return data.versions / f"{version:06d}"


def numbers(data: JobData) -> list[int]:
    """The complete versions, oldest first: a manifest means that a version is complete."""
    if not data.versions.is_dir():
        return []
    return sorted(
        int(path.name) for path in data.versions.iterdir() if path.name.isdigit() and (path / MANIFEST).is_file()
    )


def verify(data: JobData, number: int, *, digest: str | None = None) -> None:
    """Whether a version is this job's, and whole. Raises StoreError."""
    with Snapshot(folder_of(data, number), digest=digest) as snapshot:
        said = (snapshot.manifest.job, snapshot.manifest.version)
        if said != (data.name, number):
            raise StoreError(
                f"{snapshot.folder} holds version {said[1]} of the job {said[0]}, not version {number} of the job {data.name}."
            )
        snapshot.verify()


@contextlib.contextmanager
def draft_folder(data: JobData) -> Iterator[Path]:
    """A new folder to build a version in, removed at the end if it was not moved to its place.

    Its user holds the run lock, so what lies there from before is of a process that was killed: it is removed.
    """
    with os_errors(data.versions):
        data.versions.mkdir(parents=True, exist_ok=True)
        remove_drafts(data)
        draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=data.versions)) / "version"
    try:
        draft.mkdir()
        yield draft
    finally:
        shutil.rmtree(draft.parent, ignore_errors=True)


def remove_drafts(data: JobData) -> None:
    """Removes what processes that were killed left in the versions' folder."""
    for left in data.versions.glob(f"{DRAFT}*"):
        shutil.rmtree(left, ignore_errors=True)


def move_into_place(data: JobData, draft: Path, version: int) -> Path:
    """Moves a finished draft into place. It is not served yet."""
    target = folder_of(data, version)
    with os_errors(target):
        draft.rename(target)
        sync_folder(target.parent)
    return target


def candidates(data: JobData) -> list[str]:
    """The names of what the gate refused, in the order of their runs."""
    if not data.rejected.is_dir():
        return []
    names = [path.name for path in data.rejected.glob("r[0-9]*") if (path / MANIFEST).is_file()]
    return sorted(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])


def sync_files(folder: Path) -> None:
    """Makes every file of a draft durable before it is named in public."""
    with os_errors(folder):
        for path in folder.iterdir():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        sync_folder(folder)
