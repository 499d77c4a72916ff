"""Which prompts to generate, in which order. All of it streams through a scratch DuckDB file, in bounded memory.

Source rows → keys → unique prompts → less what the cache holds → ordered by shared prefix.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from batchinfer.cache import verdicts
from batchinfer.cache.schema import FAILURE_SCHEMA
from batchinfer.cache.store import Store
from batchinfer.core import keys
from batchinfer.core.clock import now
from batchinfer.core.columns import Column
from batchinfer.core.database import one, scratch_database
from batchinfer.core.records import Counts
from batchinfer.core.sql import literal, quoted
from batchinfer.inputs.misses import COUNT
from batchinfer.inputs.parquet import ROW, BadRow, Source
from batchinfer.job.spec import JobSpec
from batchinfer.planning.plan import Selection, _since

LISTED = "q_"  # the list's own columns bear it in the scratch tables, so that none is taken for one of ours


class Plan:
    """The planned list in a scratch database: tables `list` (good rows), `prompts` (unique) and `todo` (ordered)."""

    def __init__(self, db: duckdb.DuckDBPyConnection, source: Source, columns: Sequence[str]) -> None:
        self._db = db
        self.source = source
        self.columns = list(columns)  # of the template, in order of appearance
        self.counts = Counts(0, 0, 0, 0, 0, 0, 0, 0)
        self._misses: int | None = None

    @property
    def db(self) -> duckdb.DuckDBPyConnection:
        """The scratch database, for steps that join more to it."""
        return self._db

    def load(self, fingerprint: bytes, missed: Iterable[pa.Table] | None = None, at_least: int = 1) -> None:
        """Reads the list and makes every row's keys. Bad rows, and keys with two contents, go to `bad`.

        fingerprint: empty for a job that asks no model; its keys cannot conflict. missed: the rows of `misses.rows`; those
        asked for at least so often, and not in the list, are added to it.
        """
        lookup = keys.lookup_key_sql(self.source.key, self.source.normalize)
        asked = [Column(name, self.source.kinds[name]) for name in sorted(self.columns)]
        generation = keys.row_key_sql(fingerprint, asked) if fingerprint else lookup
        kept = ", ".join(f"{quoted(name)} AS {listed(name)}" for name in self._kept())
        own = ", ".join(f"{quoted(column.name)} AS {listed(column.name)}" for column in self.source.key)
        keyed = f"{quoted(ROW)} AS row, {kept}, {lookup} AS lookup, {generation} AS key"
        whole = " AND ".join(f"{quoted(column.name)} IS NOT NULL" for column in self.source.key)
        bad: list[dict[str, Any]] = []
        self._db.execute(f"CREATE TABLE bad AS SELECT * FROM {_empty(self._db, FAILURE_SCHEMA)}")
        for number, batch in enumerate(self.source.batches()):
            self._db.register("batch", batch.good)
            select = f"SELECT {keyed} FROM batch"
            self._db.execute(f"CREATE TABLE list AS {select}" if number == 0 else f"INSERT INTO list {select}")
            self._db.unregister("batch")
            self._db.register("batch", batch.lost)
            select = f"SELECT {quoted(ROW)} AS row, {own}, {lookup} AS lookup FROM batch WHERE {whole}"
            self._db.execute(f"CREATE TABLE lost AS {select}" if number == 0 else f"INSERT INTO lost {select}")
            self._db.unregister("batch")
            bad = [_bad_record(row) for row in batch.bad]
            if bad:
                self._insert_bad(bad)
        self._set_conflicts_aside()
        self._db.execute(  # every lookup key of the list, those of bad rows too
            "CREATE VIEW wanted AS "
            "SELECT lookup FROM list UNION ALL SELECT lookup FROM conflicts UNION ALL SELECT lookup FROM lost"
        )
        if missed is not None:
            self._misses = self._take_in(missed, at_least, keyed)
        self._db.execute("CREATE TABLE prompts AS SELECT key, min(row) AS first FROM list GROUP BY key")

    def _take_in(self, missed: Iterable[pa.Table], at_least: int, keyed: str) -> int:
        """Adds misses to the list, one row for each lookup key that the list does not have; returns how many.

        Of several spellings the one that was asked first stays, so that its answer is found again next time.
        """
        self._db.execute("CREATE TABLE missed AS SELECT *, 0::BIGINT AS count FROM list LIMIT 0")
        for batch in missed:
            self._db.register("batch", batch)
            self._db.execute(f"INSERT INTO missed BY NAME SELECT {keyed}, {quoted(COUNT)} AS count FROM batch")
            self._db.unregister("batch")
        last = self._count("SELECT coalesce(max(row), 0) FROM list")
        [(added,)] = self._db.execute(
            f"""INSERT INTO list BY NAME
            SELECT * EXCLUDE (count) REPLACE (row + {last} AS row) FROM missed ANTI JOIN wanted USING (lookup)
            WHERE row IN (SELECT min(row) FROM missed GROUP BY lookup HAVING sum(count) >= {at_least})"""
        ).fetchall()
        return int(added)

    def _kept(self) -> list[str]:
        return list(dict.fromkeys([*(column.name for column in self.source.key), *self.columns]))

    def _insert_bad(self, records: list[dict[str, Any]]) -> None:
        self._db.register("records", pa.Table.from_pylist(records, FAILURE_SCHEMA))
        self._db.execute("INSERT INTO bad BY NAME SELECT * FROM records")
        self._db.unregister("records")

    def _set_conflicts_aside(self) -> None:
        """Rows that share a lookup key but ask different things: no answer would be right for the key."""
        self._db.execute(  # few, as a rule: what is done with them need not be done with the whole list
            "CREATE TABLE repeats AS SELECT lookup, min(row) AS first FROM list GROUP BY lookup HAVING count(*) > 1"
        )
        names = ", ".join(["lookup", "row", *(listed(column.name) for column in self.source.key)])
        self._db.execute(
            f"CREATE TABLE conflicts AS SELECT {names} FROM list WHERE row IN "
            "(SELECT min(row) FROM list SEMI JOIN repeats USING (lookup) GROUP BY lookup HAVING min(key) <> max(key))"
        )
        if not self._count("SELECT count(*) FROM conflicts"):
            return
        query = ", ".join(f"{literal(name)}, {listed(name)}" for name in (column.name for column in self.source.key))
        self._db.execute(
            f"""INSERT INTO bad BY NAME
            SELECT NULL::BLOB AS key, NULL::BLOB AS fingerprint, row, json_object({query})::VARCHAR AS query, 'input' AS stage,
                   'conflicting_rows' AS reason, 'Rows ' || numbers || ' have the same lookup key but different content.' AS detail,
                   NULL AS parser, NULL AS run_id, ?::TIMESTAMP AS created_at
            FROM list JOIN (
                SELECT lookup, list_aggregate((list_sort(list(row)))[:5], 'string_agg', ', ') AS numbers
                FROM list SEMI JOIN conflicts USING (lookup) GROUP BY lookup) USING (lookup)""",
            [now()],
        )
        self._db.execute("DELETE FROM list WHERE lookup IN (SELECT lookup FROM conflicts)")

    def compare(self, store: Store, spec: JobSpec, parser: str, selection: Selection) -> None:
        """Works out what the cache has, and orders the rest. Sets `counts`."""
        oldest = None if selection.max_age is None else now() - selection.max_age
        refreshed = "false"
        if selection.refresh_since is not None:
            refreshed = f"key IN (SELECT key FROM cache.generations {_since(selection.refresh_since)})"
        with store.attached(self._db):
            verdicts.settle(self._db, spec)
            # Prompts of which every row has an answer by people need no model.
            self._db.execute(
                f"""CREATE OR REPLACE TABLE covered AS
                WITH imported AS MATERIALIZED (SELECT row, key FROM list SEMI JOIN {verdicts.answered(spec)} USING (lookup)),
                     partly AS (SELECT key FROM list SEMI JOIN imported USING (key) ANTI JOIN imported USING (row))
                SELECT DISTINCT key FROM imported ANTI JOIN partly USING (key)"""
            )
            self._db.execute(
                f"""CREATE OR REPLACE TABLE state AS
                SELECT key, first, key IN (SELECT key FROM covered) AS covered,
                       key IN (SELECT key FROM cache.generations {_since(oldest)}) AS made,
                       {refreshed} AS refreshed,
                       key IN (SELECT key FROM cache.failures WHERE key IS NOT NULL AND (stage = 'engine' OR parser = ?)) AS failed
                FROM prompts""",
                [parser],
            )
        again = self._again(selection)
        self._db.execute(
            f"""CREATE OR REPLACE TABLE todo AS SELECT s.key, l.* EXCLUDE (key, lookup)
            FROM state s JOIN list l ON l.row = s.first
            WHERE NOT covered AND ((NOT made AND NOT failed) OR {again})
            ORDER BY {", ".join(["s.first"] if not self.columns else [f"l.{listed(name)}" for name in self.columns])}"""
        )
        self.counts = self._counted()

    def _again(self, selection: Selection) -> str:
        """SQL for what is made again although it is there."""
        tests = []
        if selection.retry_failed:
            tests.append("failed")
        if selection.refresh_since is not None:
            rows = ""
            if selection.refresh_where is not None:
                name, value = selection.refresh_where
                rows = f" AND s.key IN (SELECT key FROM list WHERE {listed(name)}::VARCHAR = {literal(value)})"
            tests.append(f"(NOT refreshed{rows})")
        return " OR ".join(tests) or "false"

    def _counted(self) -> Counts:
        rows_good = self._count("SELECT count(*) FROM list")
        bad = self._count("SELECT count(*) FROM bad")
        unique = self._count("SELECT count(*) FROM prompts")
        to_generate = self._count("SELECT count(*) FROM todo")
        failed = self._count(
            "SELECT count(*) FROM state WHERE failed AND NOT covered AND key NOT IN (SELECT key FROM todo)"
        )
        return Counts(
            rows=rows_good + bad,
            bad=bad,
            duplicates=rows_good - unique,
            unique=unique,
            hits=unique - failed - to_generate,
            failed=failed,
            to_generate=to_generate,
            lookups=self._count("SELECT count(DISTINCT lookup) FROM wanted"),
            misses=self._misses,
        )

    def _count(self, sql: str) -> int:
        return int(one(self._db, sql))

    def bad_rows(self) -> pa.Table:
        """The bad rows, as the store takes them."""
        return self._db.sql("SELECT * FROM bad").to_arrow_table()

    def todo(self, limit: int | None = None, start: int = 0) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """(key, row) of what is to be generated, in the order in which shared prefixes lie together."""
        cursor = self._db.cursor()
        clause = ("" if limit is None else f" LIMIT {limit}") + (f" OFFSET {start}" if start else "")
        reader = cursor.sql(f"SELECT * FROM todo{clause}").to_arrow_reader(1024)
        for batch in reader:
            for record in batch.to_pylist():
                yield record["key"], _own(record)
        cursor.close()

    def rows(self, keys_: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
        """For each of these prompts that the list has, the first row that asks it."""
        self._db.register("asked", pa.table({"key": pa.array(keys_, pa.binary())}))
        sql = "SELECT l.* FROM asked JOIN prompts USING (key) JOIN list l ON l.row = first"
        rows = self._db.sql(sql).to_arrow_table()
        self._db.unregister("asked")
        return {record["key"]: _own(record) for record in rows.to_pylist()}

    def queries(self, keys_: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
        """The same, but of each row only its lookup key, for people."""
        return {key: self.query_of(row) for key, row in self.rows(keys_).items()}

    def query_of(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The lookup key of a row, for people."""
        return {column.name: row[column.name] for column in self.source.key}


def _own(record: Mapping[str, Any]) -> dict[str, Any]:
    """The list's own columns of a record."""
    return {name.removeprefix(LISTED): value for name, value in record.items() if name.startswith(LISTED)}


def listed(name: str) -> str:
    """SQL for a column of the list in the scratch tables."""
    return quoted(LISTED + name)


@contextlib.contextmanager
def scratch_plan(folder: Path, source: Source, columns: Sequence[str]) -> Iterator[Plan]:
    """A plan in a scratch database below `folder`. Raises StoreError when that cannot be written."""
    with scratch_database(folder) as db:
        yield Plan(db, source, columns)


def _bad_record(row: BadRow) -> dict[str, Any]:
    return {
        "key": None, "fingerprint": None, "row": row.row, "query": json.dumps(row.query, ensure_ascii=False), "stage": "input",
        "reason": row.reason,
        "detail": f"{row.file}, row {row.row}: {row.detail}", "parser": None, "run_id": None, "created_at": now(),
    }  # fmt: skip


def _empty(db: duckdb.DuckDBPyConnection, schema: pa.Schema) -> str:
    db.register("nothing", schema.empty_table())
    return "nothing"
