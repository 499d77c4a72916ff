"""What the cache has for the list, as a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from batchinfer.core import database, files
from batchinfer.core.home import JobData
from batchinfer.job.reader import Job
from batchinfer.planning.prepare import Options, planned, quiet
from batchinfer.publish import build
from batchinfer.publish.contents import collect


def export(job: Job, data: JobData, options: Options, target: Path, say: Callable[[str], None] = quiet) -> int:
    """Writes what the cache has for the list, and imports, as Parquet; returns the number of rows. Raises UsageError."""
    with files.atomic_output(target) as draft, planned(job, data, options, gated=False, say=say) as p:
        contents = collect(p.plan, p.store, job.spec)
        with database.copy_errors(target):
            build.write_predictions(p.plan, draft)
        return contents.entries
