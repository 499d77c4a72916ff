"""Scores of other jobs' served versions, and what their lists hold, to be looked at beside a job's own score.

| table        | columns          | what it holds                                                                  |
| ------------ | ---------------- | ------------------------------------------------------------------------------ |
| other_scores | job, mark, score | the scores of other jobs; mark: a hash of the key, by which they are joined    |
| other_lists  | job, mark        | the keys that other jobs have lists for, and each item of these lists with its |
|              |                  | key                                                                            |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchinfer.cache.workspace import Workspace
from batchinfer.core.database import TEXT_ROWS
from batchinfer.core.duckdb_paths import parquet_rows
from batchinfer.core.home import CALIBRATION, JobData
from batchinfer.core.long_rows import has_long_texts, read_parts
from batchinfer.core.long_texts import shortened_column
from batchinfer.core.sql import json_path, listed, literal
from batchinfer.errors import NotFound, UsageError
from batchinfer.job.parts import PREDICTION, Part
from batchinfer.job.spec import JobSpec
from batchinfer.publish.predictions_file import loaded
from batchinfer.versions.layout import PREDICTIONS, version_column
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.pointers import open_served


@dataclass(frozen=True, slots=True)
class OtherJob:
    """Another job whose scores are looked at.

    name: its name.
    fingerprint: of the question that its served version answers, in hexadecimal digits; None where it is not known.
    key: the columns that its rows are found by, which are columns of this job's key.
    kind: of its scores, which may change where the question stays: the model's own, by what prior, or by which calibration.
    """

    name: str
    fingerprint: str | None
    key: tuple[str, ...]
    kind: str


class OtherScores:
    """The scores and lists of other jobs. Owns the tables above in the workspace's database.

    jobs: those that have scores.
    voters: those whose lists are looked at.
    """

    def __init__(self, workspace: Workspace) -> None:
        """Looks at what is served now. Raises NotFound or UsageError for a job that the section calibrate names; StoreError."""
        self._db, self._data, self._key = workspace.db, workspace.data, workspace.spec.input.key
        self._spec, self._texts = workspace.spec.input, workspace.texts
        self.jobs = tuple(self._opened(workspace.spec))
        names = workspace.spec.calibrate.votes if workspace.spec.calibrate else []
        self.voters = tuple(self._voter(name, workspace.spec.name) for name in names)

    @property
    def fingerprints(self) -> dict[str, str | None]:
        """The question that each of them answers."""
        return {other.name: other.fingerprint for other in (*self.jobs, *self.voters)}

    @property
    def kinds(self) -> dict[str, str]:
        """What kind of scores those have that have scores; of voters the lists alone count."""
        return {other.name: other.kind for other in self.jobs}

    def _voter(self, name: str, own: str) -> OtherJob:
        """Raises NotFound or UsageError."""
        if self._spec.explode is None:
            raise UsageError(
                f"calibrate.votes: {own} has no input.explode, so there are no items that {name} could list, too."
            )
        with open_served(JobData(self._data.root, name)) as version:
            manifest = version.manifest
        key = tuple(column.name for column in manifest.key)
        wanted = [column for column in self._key if column != self._spec.as_]
        if not set(key) <= set(wanted) or not manifest.is_json:
            raise UsageError(
                f"calibrate.votes: {name} is looked up by {', '.join(key)} and its predictions are {manifest.prediction}: "
                f"its key should be of {', '.join(wanted)}, and it should have lists."
            )
        made_of = manifest.run.fingerprint
        return OtherJob(name, None if made_of is None else made_of.hex(), key, _kind(manifest))

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
                found.append(OtherJob(name, None if made_of is None else made_of.hex(), key, _kind(manifest)))
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
                path = version.folder / PREDICTIONS
                is_long = has_long_texts(path)  # then keys are tokens on both sides of the join
                columns = f"SELECT {', '.join([*map(version_column, job.key), 'score', 'scores'])} FROM"
                rows = (
                    loaded(self._db, self._texts, path, columns, is_json=version.manifest.is_json)
                    if is_long
                    else parquet_rows(path)
                )
                self._db.execute(
                    f"INSERT INTO other_scores SELECT {literal(job.name)}, {_mark(job.key, version_column)}, {_score(version.manifest)} "
                    f"FROM {rows}"
                )
                if is_long:
                    self._db.execute(f"DROP TABLE {rows}")

    def load_lists(self) -> None:
        """Makes the table of the voters' lists."""
        self._db.execute("CREATE OR REPLACE TABLE other_lists (job VARCHAR, mark UBIGINT)")
        for job in self.voters:
            with open_served(JobData(self._data.root, job.name)) as version:
                for batch in self._items(version.folder / PREDICTIONS, job.key):
                    self._db.register("list_batch", batch)
                    marks = (_mark(job.key, version_column, more) for more in (None, "lower(item)"))
                    of_keys, of_items = (f"SELECT {literal(job.name)}, {mark} FROM list_batch" for mark in marks)
                    self._db.execute(f"INSERT INTO other_lists {of_keys} UNION {of_items} WHERE item IS NOT NULL")
                    self._db.unregister("list_batch")
        self._db.execute("CREATE OR REPLACE TABLE other_lists AS SELECT DISTINCT * FROM other_lists")

    def _items(self, path: Path, key: Sequence[str]) -> Iterator[pa.Table]:
        """The key of each row of a version with each item of its list, and once without; tokens in place of long texts."""
        place = Part.parse(self._spec.explode or PREDICTION)
        items = f"list_append(json_extract(prediction::JSON, {literal(place.json_path + '[*]')}), NULL)"
        select = f"SELECT {', '.join(map(version_column, key))}, unnest({items}) ->> '$' AS item FROM"
        reading = self._db.cursor()  # rows are added while others are read
        try:
            parts = read_parts(reading, path, lambda rows: f"{select} {rows}", TEXT_ROWS, {PREDICTION: [place.path]})
            for batch in parts:
                columns = [shortened_column(column, lambda _digest, _data: None) for column in batch.columns]
                yield pa.table(columns, names=batch.schema.names)
        finally:
            reading.close()

    def votes_sql(self, rows: str) -> tuple[str, str]:
        """The share of the voters that list a row's item, less sure the fewer they are, and the joins that this needs.

        NULL where none has a list for the row's key. rows: of such with the list's columns.
        """
        joins, voted, listing = list[str](), list[str](), list[str]()
        item = f"lower({rows}.{listed(self._spec.as_ or '')}::VARCHAR)"
        for number, job in enumerate(self.voters):
            marks = (_mark(job.key, lambda column: f"{rows}.{listed(column)}", more) for more in (None, item))
            for name, mark in zip((f"k{number}", f"i{number}"), marks, strict=True):
                joins.append(
                    f"LEFT JOIN other_lists {name} ON {name}.job = {literal(job.name)} AND {name}.mark = {mark}"
                )
            voted.append(f"(k{number}.mark IS NOT NULL)::INTEGER")
            listing.append(f"(i{number}.mark IS NOT NULL)::INTEGER")
        answered, found = " + ".join(voted), " + ".join(listing)
        return f"CASE WHEN {answered} > 0 THEN ({found} + 0.5) / ({answered} + 1) END", " ".join(joins)

    def join_sql(self, job: OtherJob, name: str, rows: str) -> str:
        """A join that puts a job's `score` beside rows with the list's columns. name: of the joined. rows: of those."""
        mark = _mark(job.key, lambda column: f"{rows}.{listed(column)}")
        return f"LEFT JOIN other_scores {name} ON {name}.job = {literal(job.name)} AND {name}.mark = {mark}"


def _mark(key: Sequence[str], column: Callable[[str], str], more: str | None = None) -> str:
    """SQL for a hash of a row's key. more: SQL for a text that goes with it."""
    parts = [*(f"{column(name)}::VARCHAR" for name in key), *([] if more is None else [more])]
    return f"md5_number_lower(to_json([{', '.join(parts)}])::VARCHAR)"


def _kind(manifest: Manifest) -> str:
    """What a version's scores are, besides what its question makes them."""
    if CALIBRATION in manifest.files:
        return f"calibrated by {manifest.files[CALIBRATION].sha256}"
    output: dict[str, Any] = json.loads(manifest.spec.sections.get("output", "{}"))
    return f"with output.prior: {output.get('prior', 'none')}"


def _score(manifest: Manifest) -> str:
    """SQL for what a version says of a row in one number: of two choices always the first one's score."""
    output: dict[str, Any] = json.loads(manifest.spec.sections.get("output", "{}"))
    choices = output.get("choices") or []
    if CALIBRATION in manifest.files or len(choices) != 2:  # noqa: PLR2004 - one and the other
        return "score"
    return f"(scores ->> {literal(json_path(choices[0]))})::DOUBLE"
