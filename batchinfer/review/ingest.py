"""A review file that people have marked → verdicts in the cache, all of them or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.cache.workspace import Workspace
from batchinfer.core.database import TEXT_ROWS
from batchinfer.core.files import user_name
from batchinfer.core.home import JobData
from batchinfer.core.parquet_batches import row_batches
from batchinfer.core.records import Info, VerdictKind
from batchinfer.core.sql import listed, literal
from batchinfer.errors import FileProblem, InputError, counted
from batchinfer.inputs.csv_file import as_parquet, header
from batchinfer.job.reader import Job
from batchinfer.job.spec import JobSpec
from batchinfer.planning.prepare import Options, holding_run_lock, prepare_to_write, quiet
from batchinfer.publish.candidate import Candidate
from batchinfer.publish.caution import tell_list
from batchinfer.review.marked import MarkedRows
from batchinfer.review.rows import MAX_FAULTS, Original, RowReader
from batchinfer.review.sheet import LINE, column_of, digest_of, marks, uncell
from batchinfer.review.subject import Subject, Verdict
from batchinfer.versions.pointers import open_if_served


@dataclass(frozen=True, slots=True)
class Ingested:
    """What a review file came to.

    import_id: its number; None where nothing in it was judged.
    accepted: verdicts that accept.
    rejected: verdicts that reject.
    corrected: verdicts that give another value.
    not_judged: rows without a verdict.
    no_longer_proposed: verdicts on values that would not be published now in any case; they are kept anyway.
    """

    import_id: int | None
    accepted: int
    rejected: int
    corrected: int
    not_judged: int
    no_longer_proposed: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def is_review(path: Path, spec: JobSpec) -> bool:
    """Whether a file is a review. One that cannot be read is not: whoever reads it as something else says why."""
    return bool(marks(_columns_of(path), spec.input.key))


def _columns_of(path: Path) -> list[str]:
    try:
        if _is_csv(path):
            return header(path)
        return list(pq.read_schema(path).names) if path.is_file() else []
    except (OSError, ValueError, InputError, pa.ArrowException):
        return []


def import_review(
    job: Job,
    data: JobData,
    path: Path,
    author: str | None,
    options: Options,
    info: Info = quiet,
    *,
    rows_at_once: int = TEXT_ROWS,
) -> Ingested:
    """Imports the verdicts. author: of rows that name none; else the user. Raises InputError."""
    with (
        holding_run_lock(job, data, f"batchinfer import {job.name}", options.input, info),
        prepare_to_write(job, data, options, info) as prepared,
        data.scratch() as scratch,
    ):
        tell_list(job, data, options.input, info)
        workspace, source = prepared.workspace, prepared.query_list.source
        subject = Subject.of(job.spec, source.key, source.normalize)
        reader = RowReader(job.name, subject, source.key, author or user_name())
        marked = MarkedRows(workspace)
        _read(marked, reader, Originals(workspace, data, subject), path, scratch, rows_at_once)
        if faults := reader.faults or marked.clashes():
            raise _refusal(path, faults, reader.more)
        counts = marked.counts()
        number, outdated = _store(marked, workspace, data) if counts else (None, 0)
        accepted, rejected, corrected = (counts.get(kind, 0) for kind in VerdictKind)
        return Ingested(number, accepted, rejected, corrected, reader.blank, outdated)


def _store(marked: MarkedRows, workspace: Workspace, data: JobData) -> tuple[int, int]:
    """Imports the verdicts; returns the import's number, and how many verdicts are on what is not proposed now."""
    with open_if_served(data) as served:
        candidate = Candidate(workspace, served.folder if served else None)
    return marked.store(), marked.outdated(candidate)


def _read(
    marked: MarkedRows, reader: RowReader, originals: Originals, path: Path, scratch: Path, rows_at_once: int
) -> None:
    """Reads a review's rows. Raises InputError for a file that is none, or another job's."""
    try:
        parquet = as_parquet(path, scratch, LINE)
        _check_job(parquet, reader, path)
        for rows in _verdicts(parquet, reader, originals, path, rows_at_once):
            marked.add(rows)
    except (pa.ArrowException, OSError, ValueError) as exc:
        raise InputError(f"The review {path} cannot be read: {exc}") from exc


def _verdicts(
    file: Path, reader: RowReader, originals: Originals, path: Path, rows_at_once: int
) -> Iterator[list[Verdict]]:
    """The verdicts of each batch of rows. Raises InputError for columns that will not do."""
    columns = pq.read_schema(file).names
    names = reader.names(path, columns)
    is_csv, line = _is_csv(path), 0
    for batch in row_batches(file, columns, rows_at_once):
        rows = batch.to_pylist()
        cells = [
            {
                name: uncell(cell) if is_csv and isinstance(cell, str) else cell
                for name, cell in zip(names, row.values(), strict=True)
            }
            for row in rows
        ]
        written = originals.of([digest_of(row["check"]) for row in cells if reader.is_altered(row)]) if is_csv else {}
        found: list[Verdict] = []
        for row, own in zip(rows, cells, strict=True):
            line += 1
            found += reader.read(own, _place(row, line), line, written.get(digest_of(own["check"])))
        yield found


class Originals:
    """What is proposed now, as a review has it: for rows that came back in another form."""

    def __init__(self, workspace: Workspace, data: JobData, subject: Subject) -> None:
        self._workspace, self._data, self._subject = workspace, data, subject
        self._entries: str | None = None

    def of(self, checks: Sequence[str]) -> dict[str, Original]:
        """Those of the rows with these checks that are still proposed."""
        if not checks:
            return {}
        key = [column.name for column in self._workspace.query_list.source.key]
        extra = [name for name in self._subject.read_columns if name != "value"]
        values = [
            *(f"e.{listed(name)}::VARCHAR" for name in key),
            self._subject.value_sql,
            *(f"e.{name}" for name in extra),
        ]
        entries = self._all()
        self._subject.check_long(self._workspace.db, self._workspace.texts, entries)
        wanted = ", ".join(map(literal, {str(check) for check in checks}))
        found = self._workspace.db.execute(
            f"SELECT * FROM (SELECT {self._subject.check_sql} AS mark, {', '.join(values)} FROM {entries} e "
            f"{self._subject.join_checks}) WHERE mark IN ({wanted})"
        ).fetchall()
        rows = self._workspace.texts.whole_rows(found)
        names = [*map(column_of, key), "value"]
        return {
            row[0]: Original(
                dict(zip(names, row[1:], strict=False)), dict(zip(extra, row[1 + len(names) :], strict=True))
            )
            for row in rows
        }

    def _all(self) -> str:
        """SQL for all that is proposed, worked out once, when it is needed."""
        if self._entries is None:
            with open_if_served(self._data) as served:
                self._entries = Candidate(self._workspace, served.folder if served else None).entries_sql
        return self._entries


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _place(row: Mapping[str, Any], number: int) -> str:
    """How a row is named: by the line of a CSV, or by its number in a Parquet file."""
    return f"line {row[LINE]}" if LINE in row else f"row {number}"


def _check_job(file: Path, reader: RowReader, path: Path) -> None:
    """Raises InputError if the file begins with another job's rows: that tells more than the columns that it lacks."""
    if "job" not in pq.read_schema(file).names:
        return
    columns = ["job", LINE] if _is_csv(path) else ["job"]
    with pq.ParquetFile(file) as opened:
        batches = (batch.to_pylist() for batch in opened.iter_batches(MAX_FAULTS, columns=columns))
        first: list[dict[str, Any]] = next(batches, [])
    faults = [
        (_place(row, number), fault)
        for number, row in enumerate(first, 1)
        if row["job"] is not None and (fault := reader.of_another_job(row["job"]))
    ]
    if faults and len(faults) == len(first):
        raise _refusal(path, faults, pq.read_metadata(file).num_rows - len(first))


def _refusal(path: Path, faults: Sequence[tuple[str, str]], more: int) -> InputError:
    """The error for a review's faults, each with its place, and others that are not listed."""
    head, count = f"{path} is refused, and nothing was imported", counted(len(faults) + more, "fault")
    named = [_problem(path, place, fault) for place, fault in faults[:MAX_FAULTS]]
    more += len(faults) - len(named)
    lines = [*map(str, named), *([f"and {more:,} more"] if more else [])]
    return InputError("\n  ".join([f"{head}:", *lines])).listing(f"{head}: it has {count}.", named)


def _problem(path: Path, place: str, fault: str) -> FileProblem:
    word, _, number = place.partition(" ")  # as _place says it
    return FileProblem(str(path), fault, **{word: int(number)})
