"""What the cache has for the list, as a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchinfer.core import database, files
from batchinfer.core.home import JobData
from batchinfer.core.records import Info
from batchinfer.job.reader import Job
from batchinfer.planning.prepare import Options, prepare, quiet
from batchinfer.publish.contents import Candidate


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written.

    job: its name.
    file: where.
    rows: how many.
    """

    job: str
    file: Path
    rows: int

    def to_json(self) -> dict[str, Any]:
        return {"job": self.job, "file": str(self.file), "rows": self.rows}


def export(job: Job, data: JobData, options: Options, target: Path, info: Info = quiet) -> ExportReport:
    """Writes what the cache has for the list, and imports, as Parquet. Raises UsageError."""
    with files.atomic_output(target) as draft, prepare(job, data, options, info) as prepared:
        candidate = Candidate(prepared.workspace)
        with database.copy_errors(target):
            candidate.write(draft)
        return ExportReport(job.name, target, candidate.contents.entries)
