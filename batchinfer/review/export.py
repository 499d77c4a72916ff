"""What people should look at: the entries that nobody has judged yet, as a file for a spreadsheet, worst first.

Where scores are the chance of being right, the most uncertain come first: verdicts on those teach most.

`ingest.py` reads such a file back.

| table             | what it holds, where texts are long: tokens of them       |
| ----------------- | --------------------------------------------------------- |
| entries_narrowed  | as entries, those that are judged                         |
| served_narrowed   | lookup_hash, prediction: what is served now               |
| approved_narrowed | lookup_hash, import_id, value: what people accepted, gave |
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import duckdb

from batchinfer.cache import verdicts
from batchinfer.cache.workspace import Workspace
from batchinfer.core import output_rows
from batchinfer.core.database import TEXT_ROWS, one_integer, record_batches
from batchinfer.core.home import JobData
from batchinfer.core.long_texts import LongTexts
from batchinfer.core.output import OutputFile, OutputFormat
from batchinfer.core.person import Nobody, Person
from batchinfer.core.records import VerdictKind
from batchinfer.core.sql import listed, literal, quoted
from batchinfer.errors import UsageError, did_you_mean
from batchinfer.inputs.query_list import QueryList
from batchinfer.job.reader import Job
from batchinfer.job.spec import JobSpec
from batchinfer.planning.prepare import Options, prepare
from batchinfer.publish.candidate import Candidate
from batchinfer.publish.caution import confirm_list
from batchinfer.publish.predictions_file import are_large, narrow
from batchinfer.review.sheet import PERSON, REVIEW_COLUMNS, check_cell, column_of, safe_cell
from batchinfer.review.subject import Subject, SubjectKind
from batchinfer.versions.pointers import open_if_served

RANK = quoted("\x1frank")  # by which rows come first
PLACE = quoted("\x1fplace")  # of a drawn row; the list's own columns may bear any name


@dataclass(frozen=True, slots=True)
class ExportedReview:
    """What was written.

    job: its name.
    file: where, or - for standard output.
    rows: how many.
    new: those of them whose key has no value yet that people accepted or gave.
    subject: what is judged, values or terms.
    list_differs: that the list is another one than the served version's, as a sentence.
    """

    job: str
    file: str
    rows: int
    new: int
    subject: SubjectKind
    list_differs: str | None = None

    @property
    def changed(self) -> int:
        """How many differ from what people accepted or gave before, or, of terms, from what is served."""
        return self.rows - self.new

    def to_json(self) -> dict[str, Any]:
        return {
            "job": self.job, "file": self.file, "rows": self.rows, "new": self.new, "changed": self.changed,
            "list_differs": self.list_differs,
        }  # fmt: skip


def export_review(
    job: Job,
    data: JobData,
    options: Options,
    target: OutputFile,
    where: Mapping[str, str],
    person: Person = Nobody(),  # noqa: B008 - it has no state
) -> ExportedReview:
    """Writes what would be published now and has no verdict yet. where: only rows with these values.

    target: in one of the FORMATS of a sheet. Raises UsageError where the file or a column of `where` will not do, and NotFound where the
    data folder has nothing of the job.
    """
    data.require()
    differs = confirm_list(job, data, options.input, person, yes=options.yes)
    with (
        target.draft() as draft,
        prepare(job, data, options, person.info) as prepared,
        open_if_served(data) as served,
    ):
        candidate = Candidate(prepared.workspace, served.folder if served else None)
        sheet = Sheet(prepared.workspace, candidate, served.number if served else 0)
        sheet.fill(where)
        sheet.write(target, draft)
        rows, new = sheet.count(), sheet.count("state = 'new'")
        return ExportedReview(job.name, str(target), rows, new, sheet.subject.kind, differs)


@dataclass(frozen=True, slots=True)
class DrawnRows:
    """The rows of a review that is a sample.

    sample: its id.
    rows_sql: entries that were drawn, with a column place.
    """

    sample: str
    rows_sql: str


class Sheet:
    """The rows of a review, in the tables `approved` and `review` of a workspace's database, which it owns.

    Where texts are long, the other tables above are what these are made of.

    version: the number of the version served now; 0 without one.
    subject: what is judged.
    """

    def __init__(
        self, workspace: Workspace, candidate: Candidate, version: int, drawn: DrawnRows | None = None
    ) -> None:
        """drawn: the rows, in the order of their place; without them, all that nobody has judged, worst first."""
        self._drawn, self._entries = drawn, candidate.unseen_sql if drawn is None else drawn.rows_sql
        self._workspace, self._db, self._spec = workspace, workspace.db, workspace.spec
        self._candidate, self._version = candidate, version
        self._served = candidate.served_sql
        source = workspace.query_list.source
        self.subject = Subject.of(workspace.spec, source.key, source.normalize)
        self._context = _context(workspace.query_list, workspace.spec)
        key = [column_of(name) for name in workspace.spec.input.key]
        self._columns = ["job", "version", *key, *self._context, *self.subject.columns, *PERSON, "check"]

    def fill(self, where: Mapping[str, str] = MappingProxyType({})) -> None:
        """Makes the tables. Raises UsageError for a column of `where` that a review does not have."""
        _check_where(where, self._columns)
        are_long = any(are_large(self._db, rows, "prediction") for rows in self._compared)
        if are_long:
            self._entries, self._served = (
                narrow(self._db, rows, self._workspace.texts, table)
                for rows, table in zip(self._compared, ("entries_narrowed", "served_narrowed"), strict=True)
            )
        with self._workspace.store.attached(self._db):
            approved = self._approvals()
            if are_long:
                approved = f"FROM {narrow(self._db, approved, self._workspace.texts, 'approved_narrowed')}"
            self._db.execute(
                "CREATE OR REPLACE TABLE approved AS "
                f"SELECT lookup_hash, arg_max(value, import_id) AS value FROM ({approved}) GROUP BY lookup_hash"
            )
        self.subject.add_functions(self._db)
        self.subject.check_long(self._db, self._workspace.texts, self._entries)
        chosen = " AND ".join(f"{quoted(name)}::VARCHAR = ?" for name in where)
        self._db.execute(
            f"CREATE OR REPLACE TABLE review AS SELECT * FROM ({self._rows()}) WHERE {chosen or 'true'}",
            [*where.values()],
        )

    def count(self, which: str = "true") -> int:
        return one_integer(self._db, f"SELECT count(*) FROM review WHERE {which}")

    def write(self, target: OutputFile, draft: Path) -> None:
        """The rows as a file, worst or most uncertain first; those of a sample in their own order."""
        is_chance = self._candidate.calibration.model is not None
        first = ["abs(score - 0.5) NULLS LAST", RANK] if is_chance else [RANK, "score NULLS LAST"]
        order = [*first, "state", *(quoted(column_of(name)) for name in self._spec.input.key)]
        order = order if self._drawn is None else [PLACE]
        sql = f"SELECT {', '.join(map(quoted, self._columns))} FROM review ORDER BY {', '.join(order)}"
        if target.format == OutputFormat.CSV:
            _write_csv(self._db, sql, draft, self._workspace.texts)
        else:
            output_rows.write_output(self._db, sql, target, draft, self._workspace.texts)

    @property
    def _compared(self) -> tuple[str, str]:
        """SQL for what is judged, and for what is served now."""
        return f"SELECT * FROM {self._entries}", f"SELECT * FROM {self._served}"

    def _approvals(self) -> str:
        """The values that people accepted, or gave as a correction, for each key that has another one now.

        The last of a key is what counts.
        """
        value = f"CASE WHEN verdict = '{VerdictKind.ACCEPT}' THEN value ELSE prediction END"
        return (
            f"SELECT lookup_hash, import_id, {verdicts.plain(self._spec, value)} AS value FROM {verdicts.IMPORTS} "
            f"SEMI JOIN {self._entries} USING (lookup_hash) "
            f"WHERE verdict <> '{VerdictKind.REJECT}' AND ({value}) IS NOT NULL AND value IS NOT NULL"
        )

    def _rows(self) -> str:
        """SQL for all rows of the review."""
        person = ", ".join(f"NULL::VARCHAR AS {name}" for name in PERSON)
        return f"""
            SELECT {literal(self._spec.name)} AS job, {self._version} AS version, * REPLACE (
                strftime(generated_at, '%Y-%m-%dT%H:%M:%SZ') AS generated_at), {person}
            FROM ({self._judged()})"""

    def _judged(self) -> str:
        """SQL for what is judged, and all that is shown of it."""
        candidate, subject = self._candidate, self.subject
        key = ", ".join(f"e.{listed(name)} AS {quoted(column_of(name))}" for name in self._spec.input.key)
        context = "".join(f"l.{listed(name)} AS {quoted(name)}, " for name in self._context)
        extra = "".join(f", {sql} AS {name}" for name, sql in subject.extra_sql.items())
        listed_rows = self._workspace.query_list.first_rows_sql
        rows = f"LEFT JOIN {listed_rows} l ON e.lookup_hash = l.lookup_hash" if context else ""
        check = check_cell(subject.check_sql, self._drawn.sample if self._drawn else None)
        place = "" if self._drawn is None else f", e.place AS {PLACE}"
        return f"""
            SELECT {key}, {context}{subject.value_sql} AS value, e.score, e.source, e.model, e.generated_at,
                   CASE WHEN {subject.changed_sql} THEN 'changed' ELSE 'new' END AS state,
                   nullif(coalesce(approved.value, served.prediction), e.prediction) AS before{extra},
                   {check} AS "check", {subject.rank_sql} AS {RANK}{place}
            FROM {self._entries} e
            LEFT JOIN approved ON e.lookup_hash = approved.lookup_hash
            {subject.join_checks}
            LEFT JOIN {self._served} served ON e.lookup_hash = served.lookup_hash
            {rows}
            {subject.join_sql(candidate.entries_sql)}"""


def _context(query_list: QueryList, spec: JobSpec) -> list[str]:
    """The other columns of the list that the prompt shows: a person wants to see them, too."""
    own = {*spec.input.key, *map(column_of, spec.input.key)}
    return [name for name in query_list.columns if name not in own and name.lower() not in REVIEW_COLUMNS]


def _check_where(where: Mapping[str, str], columns: list[str]) -> None:
    known = [name for name in columns if name not in PERSON]
    if unknown := [name for name in where if name not in known]:
        fix = did_you_mean(unknown[0], known) or f"it has {', '.join(known)}."
        raise UsageError(f"--where: a review has no column {unknown[0]}", fix=fix)


def _write_csv(
    db: duckdb.DuckDBPyConnection, sql: str, target: Path, whole: LongTexts, rows_at_once: int = TEXT_ROWS
) -> None:
    """UTF-8 with a byte-order mark, so that spreadsheets read it right."""
    texts = f"SELECT COLUMNS(*)::VARCHAR FROM ({sql})"
    with record_batches(db, texts, rows_at_once) as reader, target.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(reader.schema.names)
        for batch in whole.all_whole(reader):
            writer.writerows([safe_cell(text) for text in row.values()] for row in batch.to_pylist())
