"""The cache's table `imports`: rows go in, are listed and taken back, and are found again when the job's key changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa

from batchinfer.cache.store import Store
from batchinfer.core import keys
from batchinfer.core.clock import iso, now
from batchinfer.core.columns import Column
from batchinfer.core.database import one, transaction
from batchinfer.core.keys import canonical_json
from batchinfer.core.sql import json_path, literal, quoted
from batchinfer.inputs.parquet import ListSource
from batchinfer.inputs.query_list import QueryList

BATCH_ROWS = 16_384
ROW, LOOKUP = "\x1frow", "\x1flookup"  # beside the key's columns, which may bear any name
TAKEN = "count(*) FILTER (follows IS NOT true)"  # a row that follows from another was not counted by the import either


def add(store: Store, db: duckdb.DuckDBPyConnection, rows: str, made_of: str) -> int:
    """Stores predictions or verdicts of people, all or none; returns the import's number, which none had before.

    rows: a query on `db` with columns of `imports`, but for import_id and created_at. made_of: see `key_of`.
    """
    with store.attached(db, write=True), transaction(db):
        number = int(one(db, "SELECT coalesce(max(import_id), 0) + 1 FROM cache.import_keys"))
        db.execute("INSERT INTO cache.import_keys VALUES (?, ?)", [number, made_of])
        db.execute(
            f"INSERT INTO cache.imports BY NAME SELECT *, ? AS import_id, ? AS created_at FROM ({rows})",
            [number, now()],
        )
        return number


def listing(store: Store) -> list[dict[str, Any]]:
    """One row an import: its number, time, kind (plain or review), author and size, and how many verdicts of which kind."""
    with store.open() as db:
        rows = db.execute(
            f"SELECT import_id, min(created_at), string_agg(DISTINCT author, ', '), {TAKEN}, count(verdict), "
            "count(*) FILTER (verdict = 'accept' AND follows IS NOT true), count(*) FILTER (verdict = 'reject'), "
            "count(*) FILTER (verdict = 'correct') FROM imports GROUP BY import_id ORDER BY import_id"
        ).fetchall()
    return [
        {
            "import_id": number, "created_at": iso(at), "kind": "review" if verdicts else "plain", "author": author,
            "rows": count, "accepted": accepted, "rejected": rejected, "corrected": corrected,
        }
        for number, at, author, count, verdicts, accepted, rejected, corrected in rows
    ]  # fmt: skip


def undo(store: Store, number: int) -> int:
    """Removes an import; returns its size, as `listing` has it. Its number stays taken."""
    with store.open(write=True) as db:
        count = int(one(db, f"SELECT {TAKEN} FROM imports WHERE import_id = ?", [number]))
        db.execute("DELETE FROM imports WHERE import_id = ?", [number])
    return count


def key_of(key: Sequence[Column], normalize: Sequence[str]) -> str:
    """All that lookups are made of beside the values, as text."""
    return canonical_json({"key": [[column.name, column.kind] for column in key], "normalize": list(normalize)})


def outdated(store: Store, source: ListSource) -> list[int]:
    """The imports whose lookups were made of another key than the list has now."""
    with store.open() as db:
        rows = db.execute(
            "SELECT DISTINCT import_id FROM imports LEFT JOIN import_keys USING (import_id) WHERE made_of IS DISTINCT FROM ?",
            [key_of(source.key, source.normalize)],
        ).fetchall()
    return [number for (number,) in rows]


def rebuild_lookups(store: Store, db: duckdb.DuckDBPyConnection, query_list: QueryList, numbers: Sequence[int]) -> int:
    """Makes the lookups of these imports from their queries; returns how many rows are of another key.

    Those have no lookup, until the job has their key again. db: the list's scratch database. The caller holds the run
    lock.
    """
    source = query_list.source
    chosen = f"import_id IN ({', '.join(map(str, numbers))})"
    values = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in values_sql(query_list).items())
    whole = " AND ".join(f"{quoted(column.name)} IS NOT NULL" for column in source.key)
    lookup = f"CASE WHEN {whole} THEN {keys.lookup_key_sql(source.key, source.normalize)} END AS {quoted(LOOKUP)}"
    with store.attached(db, write=True):
        db.execute("CREATE OR REPLACE TABLE moved AS FROM cache.imports LIMIT 0")
        cursor = db.cursor()
        rows = cursor.sql(f"SELECT {quoted(ROW)}, {values} FROM cache.imports AS {quoted(ROW)} WHERE {chosen}")
        for batch in rows.to_arrow_reader(BATCH_ROWS):
            table = pa.Table.from_batches([batch])
            for name, column in source.helpers({part.name: batch.column(part.name) for part in source.key}).items():
                table = table.append_column(name, column)
            db.register("batch", table)
            db.execute(
                f"INSERT INTO moved BY NAME SELECT * EXCLUDE ({quoted(LOOKUP)}) REPLACE ({quoted(LOOKUP)} AS lookup) "
                f"FROM (SELECT unnest({quoted(ROW)}), {lookup} FROM batch)"
            )
            db.unregister("batch")
        cursor.close()
        with transaction(db):
            for name in ("imports", "import_keys"):
                db.execute(f"DELETE FROM cache.{name} WHERE {chosen}")
            db.execute("INSERT INTO cache.imports BY NAME FROM moved")
            made_of = key_of(source.key, source.normalize)
            db.execute("INSERT INTO cache.import_keys SELECT DISTINCT import_id, ? FROM moved", [made_of])
    unfit = int(one(db, "SELECT count(*) FROM moved WHERE lookup IS NULL"))
    db.execute("DROP TABLE moved")
    return unfit


def values_sql(query_list: QueryList) -> dict[str, str]:
    """SQL for each key column out of a row's query, of the type that the list has; NULL if the query is of another key."""
    types = query_list.key_types()
    names = sorted(column.name for column in query_list.source.key)
    same_key = f"list_sort(json_keys(query)) = [{', '.join(map(literal, names))}]"
    return {
        column.name: f"CASE WHEN {same_key} THEN {_value_sql(column, types[column.name])} END"
        for column in query_list.source.key
    }


def _value_sql(column: Column, kind: str) -> str:
    text = f"json_extract_string(query, {literal(json_path(column.name))})"
    if column.kind == "integer":  # a cast alone would round
        text = f"regexp_extract({text}, '^[+-]?[0-9]+$')"
    return f"TRY_CAST({text} AS {kind})"


def as_prediction(given: Any, *, as_json: bool) -> str:
    """A value of a Parquet column as the JSON text of a prediction. as_json: a text is JSON already, and is checked.

    Raises ValueError, which says what is wrong after the value's name.
    """
    value = _plain(given)
    if value is None:
        raise ValueError("is null: leave the row out, or give a value")
    if as_json and isinstance(value, str):
        try:
            text = _ENCODE(json.loads(value))
            text.encode()  # half characters can be read only, as NaN can
        except (ValueError, RecursionError) as exc:
            raise ValueError(f"should be JSON, but is {value[:80]!r}: {exc}") from exc
        return text
    if not as_json and not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, default=_plain)
    try:
        return _ENCODE(value)
    except ValueError as exc:
        raise ValueError(f"cannot be JSON: {exc}") from exc


def _plain(value: Any) -> Any:
    """A value as JSON or text can hold it."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Decimal):
        return str(value)
    return value.isoformat() if isinstance(value, date | datetime | time) else value


_ENCODE = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, default=_plain
).encode  # made once: it is called for each row
