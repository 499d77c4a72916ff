"""Versions that end the process which opens them, such as one that is too large for its memory.

While a version is opened a note lies in a folder, which stays where the process dies: those that come after it see that, and
leave the version alone.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from batchinfer.errors import StoreError
from batchinfer.versions.pointers import Pointer

MOST_DEATHS = 2  # of processes that opened a version; one may be chance
FORGOTTEN_SECONDS = 1800.0


class Openings:
    """Those of one job, by all processes that share a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def noted(self, named: Pointer) -> Iterator[None]:
        """While a version is opened."""
        note = self._folder / f"{named.version}-{named.digest}-{os.getpid()}"
        with contextlib.suppress(OSError):  # a full disk keeps nobody from opening
            self._folder.mkdir(parents=True, exist_ok=True)
            note.touch()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                note.unlink(missing_ok=True)

    def check(self, named: Pointer) -> None:
        """Raises StoreError for a version of which too many died lately."""
        if sum(map(_is_of_a_death, self._folder.glob(f"{named.version}-{named.digest}-*"))) >= MOST_DEATHS:
            raise StoreError(
                f"Version {named.version} ended the workers that opened it, for want of memory or by a fault: it is tried again "
                f"after {FORGOTTEN_SECONDS / 60:.0f} minutes, or a restart of the service."
            )


def _is_of_a_death(note: Path) -> bool:
    """Whether it is of a process that is there no more."""
    try:
        lately = time.time() - note.stat().st_mtime < FORGOTTEN_SECONDS
    except OSError:  # that process has just opened it
        return False
    return lately and not Path("/proc", note.name.rpartition("-")[2]).exists()
