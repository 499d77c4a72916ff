"""Errors that nobody foresaw: one sentence for the person, and all of it in a file that can be sent to those who can fix it."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path

from batchinfer.core.version import __version__
from batchinfer.errors import shortened

SHOW = "BATCHINFER_TRACEBACK"
REPORT_TO = "the makers of batchinfer"


@dataclass(frozen=True, slots=True)
class Unforeseen:
    """An error that nobody foresaw, as it is told.

    message: what happened.
    fix: what to do.
    """

    message: str
    fix: str


def unforeseen(exc: Exception) -> Unforeseen:
    """Writes the error into a log file. Its traceback is shown as well where $BATCHINFER_TRACEBACK is 1."""
    if os.environ.get(SHOW) == "1":
        traceback.print_exception(exc)
    said = " ".join(f"{type(exc).__name__}: {exc}".split()).rstrip(": ")
    if isinstance(exc, MemoryError):
        return Unforeseen("This machine is out of memory.", "Give it more memory, or less work at a time.")
    log = _written(exc)
    where = f"with the log file {log}" if log is not None else f"with what {SHOW}=1 shows"
    return Unforeseen(
        f"An unexpected error ended this: {shortened(said, 200)}.",
        f"Please report it to {REPORT_TO}, {where}; it may quote your data, so look at it first.",
    )


def _written(exc: Exception) -> Path | None:
    """The log file, which only this user can read; None where there is no place for one."""
    lines = [f"batchinfer {__version__}, Python {sys.version}, {platform.platform()}", " ".join(sys.argv), ""]
    text = "\n".join(lines) + "".join(traceback.format_exception(exc))
    try:
        number, name = tempfile.mkstemp(prefix="batchinfer-", suffix=".log")
        with open(number, "wb") as file:  # noqa: PTH123 - it is open already
            file.write(text.encode(errors="backslashreplace"))
    except OSError:
        return None
    return Path(name)
