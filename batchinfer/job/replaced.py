"""A job file replaced by a changed text of it."""

from __future__ import annotations

import difflib
import stat

from batchinfer.core.files import real_path, write_atomically
from batchinfer.job.reader import Job


def difference(job: Job, text: str) -> str:
    """How a text differs from the job file, as a unified diff."""
    old = job.path.read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(difflib.unified_diff(old, text.splitlines(keepends=True), str(job.path), str(job.path)))


def write_job_file(job: Job, text: str) -> None:
    """Replaces the job file. Raises StoreError."""
    path = real_path(job.path)
    write_atomically(path, text.encode(), mode=stat.S_IMODE(path.stat().st_mode))
