"""What the cache has for the list, as a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from batchinfer.core import database
from batchinfer.core.home import JobData
from batchinfer.core.output import OutputFile, OutputFormat
from batchinfer.core.person import Nobody, Person
from batchinfer.job.reader import Job
from batchinfer.planning.prepare import Options, prepare
from batchinfer.publish.caution import confirm_list
from batchinfer.publish.contents import Candidate


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written.

    job: its name.
    file: where, or - for standard output.
    rows: how many.
    """

    job: str
    file: str
    rows: int

    def to_json(self) -> dict[str, Any]:
        return {"job": self.job, "file": self.file, "rows": self.rows}


def export(
    job: Job,
    data: JobData,
    options: Options,
    target: OutputFile,
    person: Person = Nobody(),  # noqa: B008 - it has no state
) -> ExportReport:
    """Writes what the cache has for the list, and imports. Raises UsageError."""
    confirm_list(job, data, options.input, person, yes=options.yes)
    with target.draft() as draft, prepare(job, data, options, person.info) as prepared:
        candidate = Candidate(prepared.workspace)
        json_texts = ["scores", *(["prediction"] if job.spec.output.is_json else [])]
        sql = candidate.rows_sql if target.format == OutputFormat.PARQUET else _as_texts(candidate.rows_sql)
        database.write_output(prepared.workspace.db, sql, target, draft, json_texts)
        return ExportReport(job.name, str(target), candidate.contents.entries)


def _as_texts(sql: str) -> str:
    """The same with the time of an answer as look-ups give it."""
    return f"SELECT * REPLACE (strftime(generated_at, '%Y-%m-%dT%H:%M:%SZ') AS generated_at) FROM ({sql})"
