"""A review file that people have marked → verdicts in the cache, taken in whole or not at all."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer import errors
from batchinfer.cache import imports, verdicts
from batchinfer.cache.workspace import Workspace
from batchinfer.core.database import one
from batchinfer.core.files import user_name
from batchinfer.core.home import JobData
from batchinfer.core.records import VerdictKind
from batchinfer.errors import InputError
from batchinfer.inputs.csv_file import as_parquet
from batchinfer.job.reader import Job
from batchinfer.job.spec import JobSpec
from batchinfer.planning.prepare import Info, Options, prepare_to_write, quiet
from batchinfer.publish.contents import Candidate
from batchinfer.review.rows import SHOWN, Reader
from batchinfer.review.sheet import marks, uncell
from batchinfer.versions.pointers import open_if_served

LINE = "\x1fline"
LONGEST = 300  # characters of a key that is shown
BATCH_ROWS = 16_384
SCHEMA = pa.schema(
    {
        "line": pa.int64(), "place": pa.string(), "lookup": pa.binary(), "query": pa.string(), "verdict": pa.string(), "value": pa.string(),
        "prediction": pa.string(), "author": pa.string(), "follows": pa.bool_(),
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ingested:
    """What a review file came to. import_id: None where nothing in it was judged.

    no_longer_proposed: verdicts on values that would not be published now in any case; they are kept all the same.
    """

    import_id: int | None
    accepted: int
    rejected: int
    corrected: int
    not_judged: int
    no_longer_proposed: int


def is_review(path: Path, spec: JobSpec) -> bool:
    """Whether a file is a review. One that cannot be read is none: who reads it as something else says why."""
    return bool(marks(_columns_of(path), spec.input.key))


def _columns_of(path: Path) -> list[str]:
    try:
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                first = file.readline()
            return [name for sign in ",;" for name in next(csv.reader([first], delimiter=sign), [])]
        return list(pq.read_schema(path).names) if path.is_file() else []
    except (OSError, ValueError, csv.Error, pa.ArrowException):
        return []


def add(job: Job, data: JobData, path: Path, author: str | None, options: Options, info: Info = quiet) -> Ingested:
    """Takes the verdicts in. author: of rows that name none; else the user. Raises InputError."""
    data.prepare(job.path)
    with (
        data.run_lock(f"batchinfer import {job.name}"),
        prepare_to_write(job, data, options, info) as prepared,
        data.scratch() as scratch,
    ):
        workspace, source = prepared.workspace, prepared.query_list.source
        reader = Reader(job.spec, source.key, source.normalize, author or user_name())
        _read(workspace.db, reader, path, scratch)
        if faults := reader.faults or _clashes(workspace.db, job.spec):
            raise InputError(_refusal(path, faults, reader.more))
        counts = dict(
            workspace.db.execute("SELECT verdict, count(*) FROM marked WHERE NOT follows GROUP BY 1").fetchall()
        )
        number, stale = _store(workspace, data) if counts else (None, 0)
        accepted, rejected, corrected = (counts.get(kind, 0) for kind in VerdictKind)
        return Ingested(number, accepted, rejected, corrected, reader.blank, stale)


def _store(workspace: Workspace, data: JobData) -> tuple[int, int]:
    """Takes the table `marked` in; returns the import's number, and how many verdicts are on what is not proposed now."""
    source = workspace.query_list.source
    with open_if_served(data) as served:
        candidate = Candidate(workspace, served.folder if served else None)
    number = imports.add(
        workspace.store, workspace.db,
        "SELECT lookup, query, prediction, author, verdict, value, follows FROM marked ORDER BY line, follows",
        imports.key_of(source.key, source.normalize),
    )  # fmt: skip
    return number, _no_longer_proposed(workspace, candidate)


def _read(db: duckdb.DuckDBPyConnection, reader: Reader, path: Path, scratch: Path) -> None:
    """Makes the table `marked`: one row a verdict. In a checking job a correction is two: on the old term, and on the new."""
    is_csv = path.suffix.lower() == ".csv"
    db.register("batch", SCHEMA.empty_table())
    db.execute("CREATE OR REPLACE TABLE marked AS FROM batch")
    db.unregister("batch")
    parquet, row = as_parquet(path, scratch, LINE), 0
    try:
        with pq.ParquetFile(parquet) as file:
            _check_job(file, reader, path, is_csv=is_csv)
            names = reader.names(path, file.schema_arrow.names)
            for batch in file.iter_batches(BATCH_ROWS):
                records: list[dict[str, Any]] = []
                for given in batch.to_pylist():
                    row += 1
                    cells = {
                        name: uncell(cell) if is_csv and isinstance(cell, str) else cell
                        for name, cell in zip(names, given.values(), strict=True)
                    }
                    records += reader.read(cells, f"line {given[LINE]}" if is_csv else f"row {row}", row)
                db.register("batch", pa.Table.from_pylist(records, SCHEMA))
                db.execute("INSERT INTO marked FROM batch")
                db.unregister("batch")
    except (pa.ArrowException, OSError, ValueError) as exc:
        raise InputError(f"The review {path} cannot be read: {exc}") from exc


def _check_job(file: pq.ParquetFile, reader: Reader, path: Path, *, is_csv: bool) -> None:
    """Raises InputError if the file begins with another job's rows: that tells more than the columns that it lacks."""
    if "job" in file.schema_arrow.names:
        columns = ["job", LINE] if is_csv else ["job"]
        batches = (batch.to_pylist() for batch in file.iter_batches(SHOWN, columns=columns))
        first: list[dict[str, Any]] = next(batches, [])
        faults = [
            f"{f'line {row[LINE]}' if is_csv else f'row {number}'}: {fault}"
            for number, row in enumerate(first, 1)
            if row["job"] is not None and (fault := reader.of_another_job(row["job"]))
        ]
        if faults and len(faults) == len(first):
            raise InputError(_refusal(path, faults, file.metadata.num_rows - len(first)))


def _clashes(db: duckdb.DuckDBPyConnection, spec: JobSpec) -> list[str]:
    """Verdicts that cannot hold beside each other. A term that several rows are corrected to is accepted once."""
    db.execute(
        f"DELETE FROM marked WHERE follows AND rowid NOT IN "
        f"(SELECT arg_min(rowid, follows) FROM marked WHERE verdict = '{VerdictKind.ACCEPT}' GROUP BY lookup)"
    )
    value, answer = (verdicts.hashed(spec, verdicts.plain(spec, name)) for name in ("value", "prediction"))
    found = db.execute(
        f"""SELECT list(place ORDER BY line), any_value(query), min(line) AS first, 'two verdicts for one value' AS fault
            FROM marked GROUP BY lookup, {value} HAVING count(*) > 1
        UNION ALL
        SELECT list(place ORDER BY line), any_value(query), min(line), 'two corrected values'
            FROM marked WHERE verdict = '{VerdictKind.CORRECT}' GROUP BY lookup
            HAVING count(DISTINCT prediction) > 1 AND count(DISTINCT value) > 1
        UNION ALL
        SELECT [c.place, r.place], c.query, c.line, 'one row gives the value that the other rejects'
            FROM (SELECT *, {answer} AS given FROM marked WHERE verdict = '{VerdictKind.CORRECT}') c
            JOIN (SELECT *, {value} AS against FROM marked WHERE verdict <> '{VerdictKind.ACCEPT}') r
            ON c.lookup = r.lookup AND c.given = r.against
        ORDER BY first"""
    ).fetchall()
    return [
        f"{' and '.join(places[:SHOWN])}: {fault} of {errors.shortened(query, LONGEST)}"
        for places, query, _, fault in found
    ]


def _refusal(path: Path, faults: Sequence[str], more: int) -> str:
    more += len(faults[SHOWN:])
    rest = f"; and {more:,} more" if more else ""
    return f"{path} is refused: {'; '.join(faults[:SHOWN])}{rest}. Nothing was taken in."


def _no_longer_proposed(workspace: Workspace, candidate: Candidate) -> int:
    """Verdicts on what would not be published now, even if nobody had rejected it."""
    value = verdicts.hashed(workspace.spec, verdicts.plain(workspace.spec, "value"))
    sql = f"""
        SELECT count(DISTINCT line) FROM (SELECT line, lookup, {value} AS value FROM marked WHERE NOT follows) m
        JOIN {candidate.proposed_sql("marked")} e USING (lookup) WHERE m.value IS NULL OR m.value = e.value"""
    return int(one(workspace.db, "SELECT count(*) FROM marked WHERE NOT follows")) - int(one(workspace.db, sql))
