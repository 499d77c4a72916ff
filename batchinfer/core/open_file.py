"""An open file of which parts are read as they are wanted. It is never mapped: one that is cut would end the process."""

from __future__ import annotations

import functools
import os
import weakref
from pathlib import Path

from batchinfer.core.files import plain_handle
from batchinfer.errors import StoreError


class DamagedFile(StoreError):
    """A file that is not what this program wrote."""


class OpenFile:
    """A file that nobody should change. Any number of threads may read it.

    path: where it lay when it was opened.
    size: in bytes, at that time.
    pread: so many bytes from a place, or fewer from a file that was cut; for who checks them. Raises OSError.
    is_damaged: whether something was read from it that this program did not write.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self.path, self.is_damaged = path, False
        self._handle = plain_handle(path)
        weakref.finalize(self, os.close, self._handle)
        self.pread = functools.partial(os.pread, self._handle)
        self.size, _ = self._facts = self._signature()

    @property
    def is_suspect(self) -> bool:
        """Whether damage was found in it, or somebody wrote into it or cut it."""
        return self.is_damaged or self._signature() != self._facts

    def read(self, begin: int, end: int) -> bytes:
        """All between two places. Raises DamagedFile."""
        if not 0 <= begin <= end <= self.size:
            raise self.damaged("a part of it lies outside")
        try:
            data = os.pread(self._handle, end - begin, begin)
        except OSError as exc:
            raise self.damaged(f"it cannot be read ({exc.strerror})") from exc
        if len(data) < end - begin:
            raise self.damaged("it was cut")
        return data

    def damaged(self, how: str) -> DamagedFile:
        """What to raise."""
        self.is_damaged = True
        return DamagedFile(f"{self.path} is damaged: {how}.")

    def _signature(self) -> tuple[int, int]:
        facts = os.fstat(self._handle)
        return facts.st_size, facts.st_mtime_ns
