"""Compares a version with its checksums, once per machine: hashing gigabytes is not for every process that opens it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from batchinfer.core.locks import lock_in_turn
from batchinfer.errors import StoreError
from batchinfer.versions.layout import MANIFEST
from batchinfer.versions.snapshot import Snapshot

VERIFYING_SECONDS = 3600.0  # how long another process may take for a version


def verify_again(snapshot: Snapshot) -> None:
    """Compares every file with the manifest, and reads every entry, whatever is remembered. Raises StoreError.

    For a version in which something damaged was found: a disk may change what it holds and leave all times as they are.
    """
    folder = _memory()
    if folder is not None:
        with contextlib.suppress(OSError):
            (folder / _identity(snapshot)).unlink(missing_ok=True)
    snapshot.verify()
    snapshot.entries.check()


def verify_once(snapshot: Snapshot) -> None:
    """Compares every file with the manifest, unless a process of this user did so with these very files. Raises StoreError.

    What was compared is remembered in the machine's folder for temporary files, by inode, size and times.
    """
    folder = _memory()
    if folder is None:
        snapshot.verify()
        return
    mark = folder / _identity(snapshot)
    if mark.exists():
        return
    with lock_in_turn(mark.with_suffix(".lock"), "comparing checksums", patience=VERIFYING_SECONDS):
        if not mark.exists():
            snapshot.verify()
            with contextlib.suppress(OSError):  # not remembered, then: the next process compares again
                mark.touch()
    # The lock's file stays: who has it open, and waits, would find a file that is gone.


def _identity(snapshot: Snapshot) -> str:
    parts = []
    for name in sorted([MANIFEST, *snapshot.manifest.files]):
        path = snapshot.folder / name
        try:
            facts = path.stat()
        except OSError as exc:
            raise StoreError(f"{path} is missing or cannot be read: {exc.strerror}.") from exc
        parts.append(f"{name}:{facts.st_dev}:{facts.st_ino}:{facts.st_size}:{facts.st_mtime_ns}:{facts.st_ctime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _memory() -> Path | None:
    """A folder of this user's alone, or None where there cannot be one: others must not vouch for files."""
    folder = Path(tempfile.gettempdir()) / f"batchinfer-checked-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
    except OSError:
        return None
    mine = facts.st_uid == os.getuid() and not facts.st_mode & 0o022 and folder.is_dir() and not folder.is_symlink()
    return folder if mine and os.access(folder, os.W_OK) else None
