"""What people should look at: the entries that nobody has judged yet, as a file for a spreadsheet, worst first.

`reviewed.py` reads such a file back.
"""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from batchinfer.cache import verdicts
from batchinfer.cache.workspace import Workspace
from batchinfer.core import database, files
from batchinfer.core.database import one
from batchinfer.core.home import JobData
from batchinfer.core.records import VerdictKind
from batchinfer.core.sql import listed, literal, quoted
from batchinfer.errors import UsageError
from batchinfer.inputs.query_list import QueryList
from batchinfer.job.reader import Job
from batchinfer.job.spec import JobSpec
from batchinfer.planning.prepare import Info, Options, prepare, quiet
from batchinfer.publish.contents import Candidate
from batchinfer.review.sheet import ABOUT, CHECKING_ONLY, DIGITS, LETTERS, PERSON, RESERVED, _cell, column_of
from batchinfer.versions.pointers import open_if_served

FOLDED = "folded_term"
CSV_ROWS = 16_384  # written at once


@dataclass(frozen=True, slots=True)
class Listed:
    """How many rows were written, and how many of them are new; the others replace what people accepted before."""

    rows: int
    new: int


def write(
    job: Job,
    data: JobData,
    options: Options,
    target: Path,
    where: Mapping[str, str],
    info: Info = quiet,
) -> Listed:
    """Writes what would be published now and has no verdict yet. where: only rows with these values.

    Raises UsageError where the file or a column of `where` will not do.
    """
    if target.suffix.lower() not in (".csv", ".parquet"):
        raise UsageError(f"{target} is neither .csv nor .parquet: name a file that ends so.")
    with (
        files.atomic_output(target) as draft,
        prepare(job, data, options, info) as prepared,
        open_if_served(data) as served,
    ):
        candidate = Candidate(prepared.workspace, served.folder if served else None)
        sheet = _Sheet(prepared.workspace, candidate, served.number if served else 0)
        sheet.fill(where)
        with database.copy_errors(target):
            sheet.write(draft, as_csv=target.suffix.lower() == ".csv")
        return Listed(sheet.count(), sheet.count("state = 'new'"))


class _Sheet:
    """The rows of a review, in the tables `approved` and `review` of a workspace's database, which it owns.

    version: the number of the version served now; 0 without one.
    """

    def __init__(self, workspace: Workspace, candidate: Candidate, version: int) -> None:
        self._workspace, self._db, self._spec = workspace, workspace.db, workspace.spec
        self._candidate, self._version = candidate, version
        self._context = _context(workspace.query_list, workspace.spec)
        self._columns = _columns(workspace.spec, self._context)

    def fill(self, where: Mapping[str, str]) -> None:
        """Makes the tables. Raises UsageError for a column of `where` that a review does not have."""
        _check_where(where, self._columns)
        with self._workspace.store.attached(self._db):
            self._db.execute(f"CREATE OR REPLACE TABLE approved AS {self._approved()}")
        if verdicts.is_checking(self._spec):
            _add_folding(self._db, self._spec)
        chosen = " AND ".join(f"{quoted(name)}::VARCHAR = ?" for name in where)
        self._db.execute(
            f"CREATE OR REPLACE TABLE review AS SELECT * FROM ({self._rows()}) WHERE {chosen or 'true'}",
            [*where.values()],
        )

    def count(self, which: str = "true") -> int:
        return int(one(self._db, f"SELECT count(*) FROM review WHERE {which}"))

    def write(self, target: Path, *, as_csv: bool) -> None:
        """The rows as a file, worst first."""
        order = ["score NULLS LAST", "state", *(quoted(column_of(name)) for name in self._spec.input.key)]
        sql = f"SELECT {', '.join(map(quoted, self._columns))} FROM review ORDER BY {', '.join(order)}"
        if as_csv:
            _write_csv(self._db, sql, target)
        else:
            self._db.execute(f"COPY ({sql}) TO {literal(str(target))} {database.COPY_OPTIONS}")

    def _approved(self) -> str:
        """The value that people accepted last, or gave as a correction, for each key that has another one now."""
        value = f"CASE WHEN verdict = '{VerdictKind.ACCEPT}' THEN value ELSE prediction END"
        return (
            f"SELECT lookup, arg_max({verdicts.plain(self._spec, value)}, import_id) AS value FROM cache.imports "
            f"SEMI JOIN {self._candidate.unseen_sql} USING (lookup) "
            f"WHERE verdict <> '{VerdictKind.REJECT}' AND ({value}) IS NOT NULL AND value IS NOT NULL GROUP BY lookup"
        )

    def _rows(self) -> str:
        """SQL for all rows of the review."""
        spec, candidate = self._spec, self._candidate
        checking = verdicts.is_checking(spec)
        value = f"e.{listed(spec.match.terms[0])}::VARCHAR" if checking and spec.match else "e.prediction"
        key = ", ".join(f"e.{listed(name)} AS {quoted(column_of(name))}" for name in spec.input.key)
        seen = "".join(f"l.{listed(name)} AS {quoted(name)}, " for name in self._context)
        about = f"e.lookup, {key}, {seen}{value} AS value, e.prediction, e.score, e.source, e.model, e.generated_at"
        changed = "served.prediction <> e.prediction" if checking else "approved.value IS NOT NULL"
        concepts = f"LEFT JOIN ({self._concepts()}) c ON {FOLDED}({value}) = c.term" if checking else ""
        first = self._workspace.query_list.first_rows_sql
        shown = f"LEFT JOIN {first} l ON e.lookup = l.lookup" if self._context else ""
        inner = f"""
            SELECT {about}, CASE WHEN {changed} THEN 'changed' ELSE 'new' END AS state,
                   nullif(coalesce(approved.value, served.prediction), e.prediction) AS before,
                   {"coalesce(c.concepts, 0)" if checking else "0"} AS concepts
            FROM {candidate.unseen_sql} e
            LEFT JOIN approved ON e.lookup = approved.lookup
            LEFT JOIN {candidate.served_sql} served ON e.lookup = served.lookup
            {shown}
            {concepts}"""
        person = ", ".join(f"NULL::VARCHAR AS {name}" for name in PERSON)
        return f"""
            SELECT {literal(spec.name)} AS job, {self._version} AS version, * REPLACE (
                strftime(generated_at, '%Y-%m-%dT%H:%M:%SZ') AS generated_at), {person}, {_digest_sql(spec)} AS "check"
            FROM ({inner})"""

    def _concepts(self) -> str:
        """How many concepts each term of a checking job names."""
        spec = self._spec
        assert spec.match is not None
        term, concept = (verdicts.part(spec, name, listed) for name in (spec.match.terms[0], spec.match.concept))
        return (
            f"SELECT nullif({FOLDED}({term}), '') AS term, count(DISTINCT {concept}) AS concepts "
            f"FROM {self._candidate.entries_sql} WHERE {verdicts.matched(spec, listed)} GROUP BY 1"
        )


def _digest_sql(spec: JobSpec) -> str:
    value = (
        r"regexp_replace(value, '\r\n?', chr(10), 'g')" if verdicts.is_checking(spec) else verdicts.same(spec, "value")
    )
    told = f"concat_ws(chr(31), {literal(spec.name)}, lower(hex(lookup)), {value})"
    return f"translate(left(sha256({told}), {DIGITS}), '{LETTERS[0]}', '{LETTERS[1]}')"


def _context(query_list: QueryList, spec: JobSpec) -> list[str]:
    """The other columns of the list that the prompt shows: a person wants to see them, too."""
    own = {*spec.input.key, *map(column_of, spec.input.key)}
    return [name for name in query_list.columns if name not in own and name.lower() not in RESERVED]


def _columns(spec: JobSpec, context: Sequence[str]) -> list[str]:
    about = [name for name in ABOUT if name not in CHECKING_ONLY or verdicts.is_checking(spec)]
    return ["job", "version", *(column_of(name) for name in spec.input.key), *context, *about, *PERSON, "check"]


def _check_where(where: Mapping[str, str], columns: list[str]) -> None:
    known = [name for name in columns if name not in PERSON]
    if unknown := [name for name in where if name not in known]:
        raise UsageError(f"--where: a review has no column {unknown[0]}: it has {', '.join(known)}.")


def _add_folding(db: duckdb.DuckDBPyConnection, spec: JobSpec) -> None:
    """Adds the function that terms are compared by: that of matching, or lower case where its library is not installed."""
    assert spec.match is not None
    term: Callable[[str], str] = str.lower
    with contextlib.suppress(ImportError):
        from batchinfer.match import folding

        term = folding.Folding(accents=spec.match.accents == "keep").term

    def folded(texts: pa.ChunkedArray) -> pa.Array:
        return pa.array([None if text is None else term(text) for text in texts.to_pylist()], pa.string())

    db.create_function(FOLDED, folded, ["VARCHAR"], "VARCHAR", type="arrow", null_handling="special")  # type: ignore[call-overload]


def _write_csv(db: duckdb.DuckDBPyConnection, sql: str, target: Path) -> None:
    """UTF-8 with a byte-order mark, so that spreadsheets read it right."""
    cursor = db.cursor()
    with target.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        reader = cursor.sql(f"SELECT COLUMNS(*)::VARCHAR FROM ({sql})").to_arrow_reader(CSV_ROWS)
        writer.writerow(reader.schema.names)
        for batch in reader:
            writer.writerows([_cell(cell) for cell in row.values()] for row in batch.to_pylist())
    cursor.close()
