"""Which old versions and refused candidates go. Imports neither duckdb nor pyarrow."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from batchinfer.core.clock import SKEW
from batchinfer.core.files import sync_folder
from batchinfer.core.home import JobData
from batchinfer.core.records import Info
from batchinfer.errors import StoreError
from batchinfer.versions import folders, pointers
from batchinfer.versions.keep import Keep
from batchinfer.versions.layout import MANIFEST
from batchinfer.versions.manifest import Manifest

REMOVED = ".removing-"


@dataclass(frozen=True, slots=True)
class Removed:
    """What a clean-up removed.

    versions: their numbers.
    candidates: their names.
    """

    versions: tuple[int, ...] = ()
    candidates: tuple[str, ...] = ()

    def told(self, keep: Keep) -> str | None:
        """The same as a sentence; None if nothing was."""
        named = [
            f"{what}{'' if len(names) == 1 else 's'} {', '.join(map(str, names))}"
            for what, names in (("version", self.versions), ("refused candidate", self.candidates))
            if names
        ]
        return f"Removed {' and '.join(named)}: keep_versions keeps {keep}." if named else None

    def to_json(self) -> list[int | str]:
        """As reports have it."""
        return [*self.versions, *self.candidates]


def retain(data: JobData, keep: Keep, info: Info) -> Removed:
    """Removes versions and refused candidates that need not be kept, and says which.

    The current and the pinned version stay, and those that a server has open; where CURRENT or PIN is damaged, all do.
    """
    removed = _clean_up(data, keep)
    if (said := removed.told(keep)) is not None:
        info(said)
    return removed


def _clean_up(data: JobData, keep: Keep) -> Removed:
    with data.versions_lock(f"batchinfer: removing old versions of {data.name}"):
        for folder in (data.versions, data.rejected):
            _clear(folder)  # what an earlier removal left when it was killed
        old = _old([data.rejected / name for name in folders.candidates(data)], keep)
        candidates = tuple(folder.name for folder in old if _try_to_remove(folder))
        try:
            found = [pointers.pointer(data, name) for name in (pointers.CURRENT, pointers.PIN)]
        except StoreError:
            return Removed((), candidates)
        named = [folders.folder_of(data, pointer.version) for pointer in found if pointer is not None]
        old = _old([folders.folder_of(data, number) for number in folders.numbers(data)], keep)
        versions = (folder for folder in old if folder not in named and _remove_unused(folder))
        return Removed(tuple(int(folder.name) for folder in versions), candidates)


def _old(folders_in_order: Sequence[Path], keep: Keep) -> list[Path]:
    """Those of some folders, oldest first, that are beyond both limits."""
    beyond = folders_in_order[: -keep.count]
    if keep.days is None:
        return list(beyond)
    today = datetime.now(UTC)
    # What is from the future was made under a clock that went wrong; it would stay for ever.
    return [folder for folder in beyond if not today - timedelta(days=keep.days) <= _made(folder) <= today + SKEW]


def _made(folder: Path) -> datetime:
    """When a version or candidate was made, by its manifest, or else by the file's own time."""
    try:
        made = Manifest.read(folder).created_at
        return made if made.tzinfo is not None else made.replace(tzinfo=UTC)
    except StoreError:
        return datetime.fromtimestamp((folder / MANIFEST).stat().st_mtime, UTC)


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


def replace(folder: Path, draft: Path) -> None:
    """Puts a draft in a folder's place. Killed in between, the folder is gone and nothing half. Raises OSError."""
    target = folder.with_name(f"{REMOVED}{folder.name}")
    folder.rename(target)
    draft.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(target)


def _clear(folder: Path) -> None:
    for left in folder.glob(f"{REMOVED}*"):
        shutil.rmtree(left, ignore_errors=True)
