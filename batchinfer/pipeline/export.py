"""What the cache has for the list, as a file."""

from __future__ import annotations

from pathlib import Path

from batchinfer.core import database, files
from batchinfer.core.home import JobData
from batchinfer.core.records import Info
from batchinfer.job.reader import Job
from batchinfer.planning.prepare import Options, prepare, quiet
from batchinfer.publish.contents import Candidate


def export(job: Job, data: JobData, options: Options, target: Path, info: Info = quiet) -> int:
    """Writes what the cache has for the list, and imports, as Parquet; returns the number of rows. Raises UsageError."""
    with files.atomic_output(target) as draft, prepare(job, data, options, info) as prepared:
        candidate = Candidate(prepared.workspace)
        with database.copy_errors(target):
            candidate.write(draft)
        return candidate.contents.entries
