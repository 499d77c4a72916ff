"""How much memory a command's tables may take: what the machine or its container has room for, or what a person said."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

from batchinfer.errors import UsageError

VARIABLE = "BATCHINFER_MEMORY"
SHARE = 8  # of the free memory; the rest is for Python, Arrow, the model and others
LEAST, MOST = 256 << 20, 768 << 20  # bytes, unless a person says otherwise
LEAST_SAID = 32 << 20  # with less, DuckDB cannot even begin
UNITS = {"": 1, "k": 10, "m": 20, "g": 30, "t": 40}
BATCHES = 24  # rows that are held at once take such a part of it
LEAST_BATCH, MOST_BATCH = 1 << 20, 32 << 20


def table_memory() -> int:
    """Bytes that the tables of one command may take; what does not fit goes to files. Raises UsageError."""
    said = os.environ.get(VARIABLE)
    if said:
        return _read(said)
    return min(max(free_memory() // SHARE, LEAST), MOST)


def batch_bytes() -> int:
    """About how many bytes of texts are held at once. Reads files: ask before a loop, not in it. Raises UsageError."""
    return min(max(table_memory() // BATCHES, LEAST_BATCH), MOST_BATCH)


def _read(said: str) -> int:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", said.lower())
    if match is None:
        raise UsageError(f"{VARIABLE} is {said!r}, which is no amount of memory: give one such as 512MB or 2GB.")
    size = int(float(match[1]) * (1 << UNITS[match[2]])) if match[2] else int(float(match[1]))
    if size < LEAST_SAID:
        raise UsageError(f"{VARIABLE} is {said}, which is too little: give at least {LEAST_SAID >> 20}MB.")
    return size


def free_memory() -> int:
    """Bytes that can be had: of the machine, or of the container if that has less."""
    found = [size for size in (_of_machine(), _of_container()) if size is not None]
    return min(found, default=MOST * SHARE)


def _of_machine() -> int | None:
    text = _content(Path("/proc/meminfo"))
    match = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return None if match is None else int(match[1]) << 10


@functools.cache  # a handful of files, for each of the databases that a small command opens
def _of_container(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The least of the limits on this process's control groups, as they are at first; None without one."""
    limits: list[str] = []
    for line in _content(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            limits += _limits(root, path, "memory.max")
        elif "memory" in controllers.split(","):  # the older form
            limits += _limits(root / "memory", path, "memory.limit_in_bytes")
    return min((int(limit) for limit in limits if limit.isdigit()), default=None)


def _limits(top: Path, path: str, name: str) -> list[str]:
    """The limits of a control group and of each above it; within a container its own group is the top."""
    place = top / path.lstrip("/")
    return [_content(folder / name).strip() for folder in (place, *place.parents) if folder.is_relative_to(top)]


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeError):
        return ""
