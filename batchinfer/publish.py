"""Which version is served: CURRENT and PIN, and the list of those there are. Imports neither duckdb nor pyarrow."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchinfer.errors import NotFound, StoreError
from batchinfer.home import JobHome, readable_faults, sync_folder, write_atomically
from batchinfer.snapshot import MANIFEST, Manifest

CURRENT = "CURRENT"
PIN = "PIN"
DRAFT = ".building-"  # what the names of unfinished folders begin with


@dataclass(frozen=True, slots=True)
class Pointer:
    """What CURRENT or PIN says: a version's number and its manifest's SHA-256."""

    version: int
    manifest: str


def folder_of(home: JobHome, version: int) -> Path:
    """Where a version lies."""
    return home.versions / f"{version:06d}"


def pointer(home: JobHome, name: str = CURRENT) -> Pointer | None:
    """What the file CURRENT or PIN says, or None without one. Raises StoreError if it is damaged."""
    path = home.folder / name
    try:
        content = json.loads(path.read_bytes())
        return Pointer(int(content["version"]), str(content["manifest_sha256"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise StoreError(f"{path} is damaged: {exc!r}. Publish again, or restore it.") from exc


def served(home: JobHome) -> Pointer:
    """The version that is served: the pinned one, else the current one. Raises NotFound."""
    found = pointer(home, PIN) or pointer(home)
    if found is None:
        raise NotFound(f"The job {home.name} has no published version in {home.root}: batchinfer run makes one.")
    return found


def numbers(home: JobHome) -> list[int]:
    """The complete versions, oldest first: a manifest means that a version is complete."""
    if not home.versions.is_dir():
        return []
    return sorted(
        int(path.name) for path in home.versions.iterdir() if path.name.isdigit() and (path / MANIFEST).is_file()
    )


def next_number(home: JobHome) -> int:
    """The number of the version to come; never one that was used, also where its folder is gone."""
    current = pointer(home)
    return max([0, *numbers(home), current.version if current else 0]) + 1


@contextlib.contextmanager
def draft_folder(home: JobHome) -> Iterator[Path]:
    """A new folder to build a version in, removed at the end if it was not moved to its place.

    Its user holds the run lock, so what lies there from before is of a process that was killed: it is removed.
    """
    with readable_faults(home.versions):
        home.versions.mkdir(parents=True, exist_ok=True)
        remove_drafts(home)
        draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=home.versions)) / "version"
    try:
        draft.mkdir()
        yield draft
    finally:
        shutil.rmtree(draft.parent, ignore_errors=True)


def remove_drafts(home: JobHome) -> None:
    """Removes what processes that were killed left in the versions' folder."""
    for left in home.versions.glob(f"{DRAFT}*"):
        shutil.rmtree(left, ignore_errors=True)


def install(home: JobHome, draft: Path, version: int) -> Path:
    """Moves a finished draft into place. It is not served yet."""
    target = folder_of(home, version)
    with readable_faults(target):
        draft.rename(target)
        sync_folder(target.parent)
    return target


def pointer_to(home: JobHome, version: int) -> Pointer:
    """What CURRENT or PIN would say to name this version. Raises StoreError."""
    path = folder_of(home, version) / MANIFEST
    try:
        return Pointer(version, hashlib.sha256(path.read_bytes()).hexdigest())
    except OSError as exc:
        raise StoreError(f"{path} cannot be read: {exc.strerror}.") from exc


def make_current(home: JobHome, version: int, name: str = CURRENT) -> None:
    """Flips CURRENT, or the pointer of that name, atomically."""
    named = pointer_to(home, version)
    content = {"version": named.version, "manifest_sha256": named.manifest}
    write_atomically(home.folder / name, json.dumps(content).encode())


def listing(home: JobHome) -> list[dict[str, Any]]:
    """One row a version, newest first, as `versions --json` prints it."""
    current, pinned = pointer(home), pointer(home, PIN)
    rows = []
    for number in reversed(numbers(home)):
        manifest = Manifest.read(folder_of(home, number))
        rows.append(
            {
                "version": number,
                "created_at": manifest.content["created_at"],
                "rows": manifest.rows,
                "current": current is not None and current.version == number,
                "pinned": pinned is not None and pinned.version == number,
                "gate": manifest.content["gate"]["status"],
            }
        )
    return rows


def sync_files(folder: Path) -> None:
    """Makes every file of a draft durable before it is named in public."""
    with readable_faults(folder):
        for path in folder.iterdir():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        sync_folder(folder)
