"""Waiting for a database file that another process has open: it is said for whom, and ends."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import duckdb

from batchinfer.errors import Busy

T = TypeVar("T")
log = logging.getLogger("batchinfer")  # shown on standard error, as waits for locks are
PATIENCE_SECONDS = 10.0
SILENT_SECONDS = 1.0  # a wait that is shorter is not worth a word
LOOKING_SECONDS = 0.05
LOCKED = ("Could not set lock", "Unique file handle conflict")  # by another process; by another thread of this one
HOLDER = re.compile(r"held in .*\(PID (\d+)\)")


def patiently(path: Path, patience: float, action: Callable[[], T]) -> T:
    """Does it, trying again while another process has the file open. Raises Busy after so many seconds."""
    began, silent = time.monotonic(), True
    while True:
        try:
            return action()
        except duckdb.Error as exc:
            if not any(sign in str(exc) for sign in LOCKED):
                raise
            waited, holder = time.monotonic() - began, _holder(str(exc))
            if waited > patience:
                raise Busy(f"{holder.capitalize()} has {path} open: wait for it, or stop it.") from exc
        if silent and waited > SILENT_SECONDS:
            log.warning("Waiting for %s, which %s has open ...", path, holder)
            silent = False
        time.sleep(LOOKING_SECONDS)


def _holder(said: str) -> str:
    """Whom an error of DuckDB's names."""
    found = HOLDER.search(said)
    return f"process {found[1]}" if found else "another process"
