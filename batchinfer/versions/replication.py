"""Copies the served version to another data folder: files first, CURRENT last. Needs neither duckdb nor pyarrow."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from batchinfer.core.files import os_errors, plain_handle, read_small, real_path, write_atomically
from batchinfer.core.home import JobData
from batchinfer.core.records import Info
from batchinfer.core.sizes import size_text
from batchinfer.errors import StoreError, UsageError
from batchinfer.versions import folders, pointers, retention
from batchinfer.versions.layout import MANIFEST
from batchinfer.versions.pointers import Pointer
from batchinfer.versions.precision import precision_file
from batchinfer.versions.snapshot import Snapshot

CHUNK = 4 << 20
BIG = 64 << 20  # bytes; copying a file of that size takes long enough to say so


@dataclass(frozen=True, slots=True)
class Replicated:
    """How a copy ended.

    job: its name.
    version: the version that is current in the other data folder now.
    destination: the other data folder, as it was named.
    copied: whether it was copied; if not, it was there already.
    bytes: the size of what was copied.
    pinned: the version that is served there instead, if one is pinned.
    versions_removed: old versions and candidates that were removed there.
    """

    job: str
    version: int
    destination: str
    copied: bool
    bytes: int
    pinned: int | None
    versions_removed: list[int | str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def replicate(data: JobData, destination: str | Path, info: Info) -> Replicated:
    """Copies what is served to another data folder, which is made if need be, and makes it current there.

    Raises UsageError, NotFound, Busy or StoreError.
    """
    there = _destination(data, Path(destination).absolute())
    doing = f"batchinfer copy {data.name}"
    with pointers.open_served(data) as source, there.first_use(doing, lambda: not folders.numbers(there)):
        found = pointers.pointer_to(data, source.number)
        folders.remove_drafts(there)
        size = 0
        if copied := not _is_there(there, found):
            size = _copy(source, found, there, info)
        for path, target in _also_copied(data, there, found.version):
            if path.is_file():
                with os_errors(target):
                    target.parent.mkdir(exist_ok=True)
                write_atomically(target, path.read_bytes())
        with there.versions_lock(doing):
            pointers.make_current(there, found.version)
        removed = retention.retain(there, source.manifest.spec.keep_versions, info)
        pin = pointers.pointer(there, pointers.PIN)
    pinned = None if pin is None or pin.version == found.version else pin.version
    return Replicated(data.name, found.version, str(destination), copied, size, pinned, removed.to_json())


def _also_copied(data: JobData, there: JobData, version: int) -> list[tuple[Path, Path]]:
    """What a service says of a job besides its versions, and where it goes."""
    last_run = "last_run.json"
    return [
        (data.folder / last_run, there.folder / last_run),
        (precision_file(data, version), precision_file(there, version)),
    ]


def _destination(data: JobData, root: Path) -> JobData:
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root} is not a folder: name a data folder, or one that is to be made.")
    if root.exists() and root.samefile(data.root):
        raise UsageError(f"{root} is the data folder that the version lies in: name another one.")
    return JobData(real_path(root), data.name)


def _is_there(there: JobData, found: Pointer) -> bool:
    """Whether that version is there already. Raises UsageError if another one has its number, StoreError if it is damaged."""
    place = folders.folder_of(there, found.version)
    if not place.exists():
        return False
    try:
        digest = hashlib.sha256(read_small(place / MANIFEST)).hexdigest()
    except OSError:
        raise UsageError(f"{place} is not a complete version: remove that folder, then copy again.") from None
    if digest != found.digest:
        raise UsageError(
            f"{there.root} has another version {found.version} of its own: remove {place} if nobody needs it, "
            "or publish once more here, then copy again."
        )
    try:
        with Snapshot(place, digest=found.digest) as snapshot:
            snapshot.verify()
    except StoreError as exc:
        raise StoreError(f"{exc} Remove {place}, then copy again.") from exc
    return True


def _copy(source: Snapshot, found: Pointer, there: JobData, info: Info) -> int:
    """Brings the files over, under a temporary name until all are checked; returns their bytes."""
    files = source.manifest.files
    with folders.draft_folder(there) as draft:
        for name, facts in files.items():
            if facts.size > BIG:
                info(f"Copying {name} ({size_text(facts.size)}) ...")
            _copy_file(source.folder / name, draft / name, facts.sha256)
        _copy_file(source.folder / MANIFEST, draft / MANIFEST, found.digest)
        folders.sync_files(draft)
        with Snapshot(draft, digest=found.digest) as snapshot:
            snapshot.verify()
        with there.versions_lock(f"batchinfer copy {there.name}"):
            folders.move_into_place(there, draft, found.version)
    return sum(facts.size for facts in files.values())


def _copy_file(source: Path, target: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    try:
        handle = plain_handle(source)
    except OSError as exc:
        raise StoreError(f"{source} is missing or cannot be read: {exc.strerror}.") from exc
    with os.fdopen(handle, "rb") as reading, os_errors(target), target.open("wb") as writing:
        while chunk := reading.read(CHUNK):
            digest.update(chunk)
            writing.write(chunk)
    if digest.hexdigest() != sha256:
        raise StoreError(f"{source} is damaged: its checksum differs from the manifest's; nothing was published.")
