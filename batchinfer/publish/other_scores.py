"""Scores of other jobs' served versions, to be looked at beside a job's own.

| table        | columns          | what it holds                                                               |
| ------------ | ---------------- | --------------------------------------------------------------------------- |
| other_scores | job, mark, score | the scores of other jobs; mark: a hash of the key, by which they are joined |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from batchinfer.cache.workspace import Workspace
from batchinfer.core.duckdb_paths import parquet_rows
from batchinfer.core.home import CALIBRATION, JobData
from batchinfer.core.sql import json_path, listed, literal
from batchinfer.errors import NotFound, UsageError
from batchinfer.job.spec import JobSpec
from batchinfer.versions.layout import PREDICTIONS, version_column
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.pointers import open_served

TWO = 2  # choices, of which one score says all


@dataclass(frozen=True, slots=True)
class OtherJob:
    """Another job whose scores are looked at.

    name: its name.
    fingerprint: of the question that its served version answers, in hexadecimal digits; None where it is not known.
    key: the columns that its rows are found by, which are columns of this job's key.
    """

    name: str
    fingerprint: str | None
    key: tuple[str, ...]


class OtherScores:
    """The scores of other jobs. Owns the table above in the workspace's database.

    jobs: those that have some.
    """

    def __init__(self, workspace: Workspace) -> None:
        """Looks at what is served now. Raises NotFound or UsageError for a job that calibrate.scores names; StoreError."""
        self._db, self._data, self._key = workspace.db, workspace.data, workspace.spec.input.key
        self.jobs = tuple(self._opened(workspace.spec))

    def _opened(self, spec: JobSpec) -> list[OtherJob]:
        found, wanted = [], spec.calibrate.scores if spec.calibrate else []
        for name in dict.fromkeys([*([spec.input.job] if spec.input.job else []), *wanted]):
            try:
                with open_served(JobData(self._data.root, name)) as version:
                    manifest = version.manifest
            except NotFound:
                if name in wanted:
                    raise
                continue
            key = tuple(column.name for column in manifest.key)
            if set(key) <= set(self._key):
                made_of = manifest.run.fingerprint
                found.append(OtherJob(name, None if made_of is None else made_of.hex(), key))
            elif name in wanted:
                raise UsageError(
                    f"calibrate.scores: {name} is looked up by {', '.join(key)}, and the key of {spec.name} is {', '.join(self._key)}: "
                    "all of its columns must be there."
                )
        return found

    def load(self, jobs: Sequence[OtherJob]) -> None:
        """Makes the table, of some of the jobs."""
        self._db.execute("CREATE OR REPLACE TABLE other_scores (job VARCHAR, mark UBIGINT, score DOUBLE)")
        for job in jobs:
            with open_served(JobData(self._data.root, job.name)) as version:
                rows = parquet_rows(version.folder / PREDICTIONS)
                self._db.execute(
                    f"INSERT INTO other_scores SELECT {literal(job.name)}, {_mark(job.key, version_column)}, {_score(version.manifest)} "
                    f"FROM {rows}"
                )

    def join_sql(self, job: OtherJob, name: str, rows: str) -> str:
        """A join that puts a job's `score` beside rows with the list's columns. name: of the joined. rows: of those."""
        mark = _mark(job.key, lambda column: f"{rows}.{listed(column)}")
        return f"LEFT JOIN other_scores {name} ON {name}.job = {literal(job.name)} AND {name}.mark = {mark}"


def _mark(key: Sequence[str], column: Callable[[str], str]) -> str:
    """SQL for a hash of a row's key."""
    return f"md5_number_lower(to_json([{', '.join(f'{column(name)}::VARCHAR' for name in key)}])::VARCHAR)"


def _score(manifest: Manifest) -> str:
    """SQL for what a version says of a row in one number: of two choices always the first one's score."""
    output: dict[str, Any] = json.loads(manifest.spec.sections.get("output", "{}"))
    choices = output.get("choices") or []
    if CALIBRATION in manifest.files or len(choices) != TWO:
        return "score"
    return f"(scores ->> {literal(json_path(choices[0]))})::DOUBLE"
