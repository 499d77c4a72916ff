"""Which old versions and refused candidates go. Imports neither duckdb nor pyarrow."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from batchinfer.core.files import sync_folder
from batchinfer.core.home import JobData
from batchinfer.errors import StoreError
from batchinfer.versions import folders, pointers
from batchinfer.versions.layout import MANIFEST

REMOVED = ".removing-"


def retain(data: JobData, keep: int) -> list[int]:
    """Removes all but the newest `keep` versions and as many refused candidates; returns the versions that went.

    The current and the pinned version stay, and those that a server has open; where CURRENT or PIN is damaged, all do.
    """
    with data.versions_lock(f"batchinfer: removing old versions of {data.name}"):
        for folder in (data.versions, data.rejected):
            _clear(folder)  # what an earlier removal left when it was killed
        for name in folders.candidates(data)[:-keep]:
            _try_to_remove(data.rejected / name)
        try:
            found = [pointers.pointer(data, name) for name in (pointers.CURRENT, pointers.PIN)]
        except StoreError:
            return []
        named = [pointer.version for pointer in found if pointer is not None]
        old = [number for number in folders.numbers(data)[:-keep] if number not in named]
        return [number for number in old if _remove_unused(folders.folder_of(data, number))]


def _remove_unused(folder: Path) -> bool:
    with _unused(folder) as unused:
        return unused and _try_to_remove(folder)


@contextlib.contextmanager
def _unused(folder: Path) -> Iterator[bool]:
    """Whether nobody has the version open; nobody can open it for as long as this lasts."""
    try:
        handle = os.open(folder / MANIFEST, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # a server holds it, or the file system has no locks: it stays
        yield False
    else:
        yield True
    finally:
        os.close(handle)


def _try_to_remove(folder: Path) -> bool:
    """Whether the folder went. What is left under its other name goes with the next clean-up."""
    with contextlib.suppress(OSError):
        remove(folder)
    return not folder.exists()


def remove(folder: Path) -> None:
    """Removes a folder, under another name first: what is half removed must not look whole. Raises OSError."""
    target = folder.with_name(f"{REMOVED}{folder.name}")
    folder.rename(target)
    sync_folder(folder.parent)
    shutil.rmtree(target)


def _clear(folder: Path) -> None:
    for left in folder.glob(f"{REMOVED}*"):
        shutil.rmtree(left, ignore_errors=True)
