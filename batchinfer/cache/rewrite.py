"""A cache without some of its rows: written as a new file, since deleted rows would stay in the old one's blocks.

| table | columns                                                      |
| ----- | ------------------------------------------------------------ |
| gone  | name (of the cache's table), id (of a row that is to go)     |
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from typing import Any

import duckdb

from batchinfer.cache.pieces import LONG_COLUMNS, digests_sql
from batchinfer.cache.store import Store
from batchinfer.core.duckdb_paths import database_place
from batchinfer.core.files import os_errors, replace_durably
from batchinfer.core.sql import literal, quoted

RunReportJson = dict[str, Any]


class GoneRows:
    """The rows of a cache that are to go. Owns the table above in the scratch database that it is given."""

    def __init__(self, db: duckdb.DuckDBPyConnection, *, more: bool = False) -> None:
        """Makes the table, empty. more: go on with what was marked before."""
        self._db = db
        if not more:
            db.execute("CREATE OR REPLACE TABLE gone (name VARCHAR, id BIGINT)")

    def mark(self, name: str, rowids: str) -> None:
        """Marks rows of one of the cache's tables to go. rowids: SQL for their row numbers."""
        self._db.execute(f"INSERT INTO gone SELECT {literal(name)}, * FROM ({rowids})")

    def rows_of(self, name: str) -> str:
        """SQL for the row numbers that are to go of a table."""
        return f"SELECT id FROM gone WHERE name = {literal(name)}"

    def counts(self) -> dict[str, int]:
        """How many rows are to go, by table; those with any."""
        return dict(self._db.execute("SELECT name, count(DISTINCT id) FROM gone GROUP BY name").fetchall())


def settle(store: Store) -> None:
    """Writes a log that a killed process left into the file, whose rows then keep their numbers while the run lock is held."""
    with store.open(write=True) as cache:
        cache.execute("CHECKPOINT")


def rewrite(
    store: Store, db: duckdb.DuckDBPyConnection, report: Callable[[RunReportJson], RunReportJson] | None = None
) -> None:
    """Replaces the cache by a file that never held what `GoneRows` has. report: what becomes of each run's report."""
    draft = store.path.with_name(f".{store.path.name}.{os.getpid()}")
    try:
        with store.attached(db), database_place(draft, read_only=False) as place:
            _copy(db, place, report)
        with os_errors(draft):
            shutil.copymode(store.path, draft)
            replace_durably(draft, store.path)
    finally:
        remove_cache_drafts(store)


def remove_cache_drafts(store: Store) -> None:
    """Removes new cache files that were not finished; the caller holds the run lock."""
    for left in store.path.parent.glob(f".{store.path.name}.*"):
        left.unlink(missing_ok=True)


def _copy(db: duckdb.DuckDBPyConnection, place: str, report: Callable[[RunReportJson], RunReportJson] | None) -> None:
    """The cache without what is in `gone`, into a new file."""
    db.execute(f"ATTACH {literal(place)} AS fresh")
    try:
        db.execute("COPY FROM DATABASE cache TO fresh (SCHEMA)")
        for (name,) in db.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'cache'").fetchall():
            left = f"rowid NOT IN (SELECT id FROM gone WHERE name = {literal(name)})"
            if name == "long_texts":
                continue
            if name != "runs" or report is None:
                db.execute(f"INSERT INTO fresh.{quoted(name)} SELECT * FROM cache.{quoted(name)} WHERE {left}")
            else:
                _copy_runs(db, report)
        _copy_texts(db)
        db.execute("CHECKPOINT fresh")
    finally:
        db.execute("DETACH fresh")


def _copy_texts(db: duckdb.DuckDBPyConnection) -> None:
    """The long texts that what is left names."""
    named = " UNION ALL ".join(
        f"SELECT unnest({digests_sql(columns)}) AS name FROM fresh.{table}" for table, columns in LONG_COLUMNS.items()
    )
    db.execute(
        "INSERT INTO fresh.long_texts SELECT * FROM cache.long_texts "
        f"WHERE digest IN (SELECT DISTINCT unhex(name) FROM ({named})) ORDER BY rowid"
    )


def _copy_runs(db: duckdb.DuckDBPyConnection, report: Callable[[RunReportJson], RunReportJson]) -> None:
    for row, text in db.execute("SELECT rowid, report FROM cache.runs ORDER BY run_id").fetchall():
        changed = None if text is None else json.dumps(report(json.loads(text)))
        sql = "INSERT INTO fresh.runs SELECT * REPLACE (?::VARCHAR AS report) FROM cache.runs WHERE rowid = ?"
        db.execute(sql, [changed, row])
