"""Digests of models' files: many gigabytes are read once, and remembered by path, size and times of the files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchinfer.core.files import UNREAD, read_small, write_atomically
from batchinfer.core.home import cache_folder
from batchinfer.errors import StoreError

log = logging.getLogger("batchinfer")  # shown on standard error, as waits for locks are
PIECE = 1 << 20  # bytes of a file that are read at a time
SILENT_SECONDS, SAY_SECONDS = 1.0, 10.0  # of reading, before the first word and between two


def digests_file() -> Path:
    """Where they are remembered."""
    return cache_folder() / "digests.json"


def folder_digest(folder: Path) -> str:
    """SHA-256 over a folder's file names and contents, hex; remembered where the user's cache folder can be written."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return _remembered(folder, files, lambda reading: _read_folder(folder, files, reading))


def file_digest(file: Path) -> str:
    """SHA-256 of a file, hex; remembered likewise."""
    return _remembered(file, [file], lambda reading: _read_file(file, reading))


def _remembered(path: Path, files: Sequence[Path], read: Callable[[_ReadingProgress], str]) -> str:
    """The digest of a path that has these files; they are read only if they are not as they were."""
    stats = [(str(file), file.stat()) for file in files]
    # a copy may be given size and time of another file, but not its own number and the time of that change
    stamp = [[name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino] for name, stat in stats]
    known = _known_digests()
    if (entry := known.get(str(path))) is not None and entry[0] == stamp:
        return entry[1]
    digest = read(_ReadingProgress(path, sum(stat.st_size for _, stat in stats)))
    _remember_digests(known | {str(path): (stamp, digest)})
    return digest


def _read_folder(folder: Path, files: Sequence[Path], reading: _ReadingProgress) -> str:
    whole = hashlib.sha256()
    for file in files:
        whole.update(os.fsencode(file.relative_to(folder)) + f"\0{_read_file(file, reading)}\n".encode())
    return whole.hexdigest()


def _read_file(path: Path, reading: _ReadingProgress) -> str:
    inner = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            inner.update(piece)
            reading.tell(len(piece))
    return inner.hexdigest()


class _ReadingProgress:
    """Says how far it is, where reading takes more than a moment."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size, self._read = path, size, 0
        self._next = time.monotonic() + SILENT_SECONDS

    def tell(self, more: int) -> None:
        self._read += more
        if time.monotonic() > self._next:
            log.warning(
                "Reading %s once, to know it by its files: %.1f of %.1f GB ...",
                self._path, self._read / 1e9, self._size / 1e9,
            )  # fmt: skip
            self._next += SAY_SECONDS


def _known_digests() -> dict[str, tuple[list[Any], str]]:
    """Of each path its files, and the digest."""
    try:
        content = json.loads(read_small(digests_file()))
        return {path: (list(stamp), bytes.fromhex(digest).hex()) for path, (stamp, digest) in content.items()}
    except UNREAD:
        return {}  # only a cache: a damaged one is made again


def _remember_digests(known: Mapping[str, tuple[list[Any], str]]) -> None:
    """Writes those of what is still there; where it cannot, files are read again next time."""
    content = json.dumps({path: entry for path, entry in known.items() if os.path.exists(path)})  # noqa: PTH110 - raises nothing
    with contextlib.suppress(OSError, StoreError):
        digests_file().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(digests_file(), content.encode(), mode=0o600)
