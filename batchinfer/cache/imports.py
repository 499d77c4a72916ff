"""The cache's table `imports`: rows are added, listed and removed, and are found again when the job's key changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import StrEnum
from typing import Any

import duckdb
import pyarrow as pa

from batchinfer.cache.pieces import insert_named
from batchinfer.cache.store import Store
from batchinfer.core import keys
from batchinfer.core.clock import iso, now
from batchinfer.core.columns import Column
from batchinfer.core.database import TEXT_ROWS, one, one_integer, record_batches, transaction
from batchinfer.core.keys import canonical_json
from batchinfer.core.long_texts import LongTexts
from batchinfer.core.records import VerdictKind
from batchinfer.core.sql import json_path, literal, quoted, time_text
from batchinfer.errors import BatchinferError, StoreError
from batchinfer.inputs.parquet import ListSource
from batchinfer.inputs.query_list import QueryList
from batchinfer.inputs.shortest import TRAILING_ZEROS, WITHOUT_ZEROS, Form

STORED_ROW, NEW_LOOKUP = "\x1frow", "\x1flookup"  # beside the key's columns, which may bear any name
ROWS_SQL = (
    "count(*) FILTER (follows IS NOT true)"  # a row that follows from another was not counted by the import either
)


class ImportKind(StrEnum):
    """What was imported."""

    PLAIN = "plain"
    REVIEW = "review"


@dataclass(frozen=True, slots=True)
class ImportRow:
    """An import as the cache has it.

    import_id: its number.
    created_at: when, RFC 3339, UTC.
    kind: predictions, or the verdicts of a review.
    author: who made it; several are separated by commas.
    rows: its size, without what follows from other rows.
    accepted: verdicts that accept.
    rejected: verdicts that reject.
    corrected: verdicts that give another value.
    """

    import_id: int
    created_at: str | None
    kind: ImportKind
    author: str | None
    rows: int
    accepted: int
    rejected: int
    corrected: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def store_import(store: Store, db: duckdb.DuckDBPyConnection, rows: str, key_spec: str, texts: LongTexts) -> int:
    """Stores predictions or verdicts of people, all or none; returns the import's number, which none had before.

    rows: a query on `db` with columns of `imports`, but for import_id and created_at.
    key_spec: see `key_of`.
    texts: those that the rows have tokens of.
    """
    number = 0
    try:
        with store.attached(db, write=True), transaction(db):
            number = one_integer(db, "SELECT coalesce(max(import_id), 0) + 1 FROM cache.import_keys")
            db.execute("INSERT INTO cache.import_keys VALUES (?, ?)", [number, key_spec])
            insert_named(db, rows, texts)
            db.execute(
                f"INSERT INTO cache.imports BY NAME SELECT *, ? AS import_id, ? AS created_at FROM ({rows})",
                [number, now()],
            )
    except StoreError:
        if not (number and _is_stored(store, number)):
            raise
    return number


def _is_stored(store: Store, number: int) -> bool:
    """Whether an import is in the cache although storing it ended with an error. Raises StoreError where nobody can say."""
    try:
        with store.open() as db:
            return bool(one(db, "SELECT count(*) FROM import_keys WHERE import_id = ?", [number]))
    except BatchinferError as exc:
        raise StoreError(
            f"It is not known whether the import was stored ({exc}): look at batchinfer import JOB --list before you import it again."
        ) from exc


def all_imports(store: Store) -> list[ImportRow]:
    """All imports, oldest first."""
    judged = [f"count(*) FILTER (verdict = '{kind}' AND follows IS NOT true)" for kind in VerdictKind]
    with store.open() as db:
        rows = db.execute(
            f"SELECT import_id, min(created_at), count(verdict), string_agg(DISTINCT author, ', '), {ROWS_SQL}, "
            f"{', '.join(judged)} FROM imports GROUP BY import_id ORDER BY import_id"
        ).fetchall()
    return [
        ImportRow(number, iso(at), ImportKind.REVIEW if verdicts else ImportKind.PLAIN, author, *counts)
        for number, at, verdicts, author, *counts in rows
    ]


def remove_import(store: Store, number: int) -> int:
    """Removes an import; returns its size, as `all_imports` has it. Its number stays taken."""
    with store.open(write=True) as db:
        count = one_integer(db, f"SELECT {ROWS_SQL} FROM imports WHERE import_id = ?", [number])
        db.execute("DELETE FROM imports WHERE import_id = ?", [number])
    return count


def key_of(key: Sequence[Column], normalize: Sequence[str], forms: Mapping[str, Form] | None = None) -> str:
    """All that lookups are made of beside the values, as text. forms: of key columns whose numbers have a shortest form."""
    made = {"key": [[column.name, column.kind] for column in key], "normalize": list(normalize)}
    return canonical_json(made | ({"forms": dict(forms)} if forms else {}))


def outdated(store: Store, source: ListSource) -> list[int]:
    """The imports whose lookups were made of another key than the list has now."""
    with store.open() as db:
        rows = db.execute(
            "SELECT DISTINCT import_id FROM imports LEFT JOIN import_keys USING (import_id) WHERE made_of IS DISTINCT FROM ?",
            [key_of(source.key, source.normalize, source.forms)],
        ).fetchall()
    return [number for (number,) in rows]


def rebuild_lookups(
    store: Store,
    db: duckdb.DuckDBPyConnection,
    query_list: QueryList,
    numbers: Sequence[int],
    *,
    rows_at_once: int = TEXT_ROWS,
) -> int:
    """Makes the lookups of these imports from their queries; returns how many rows are of another key.

    Those have no lookup, until the job has their key again. The caller holds the run lock.

    db: the list's scratch database. Owns the table `moved` there for as long as it runs.
    """
    chosen = f"import_id IN ({', '.join(map(str, numbers))})"
    query_list.texts.load()  # while nobody has the cache open
    with store.attached(db, write=True):
        _make_moved(db, query_list, chosen, rows_at_once)
        with transaction(db):
            for name in ("imports", "import_keys"):
                db.execute(f"DELETE FROM cache.{name} WHERE {chosen}")
            db.execute("INSERT INTO cache.imports BY NAME FROM moved")
            source = query_list.source
            key_spec = key_of(source.key, source.normalize, source.forms)
            db.execute("INSERT INTO cache.import_keys SELECT DISTINCT import_id, ? FROM moved", [key_spec])
    unfit = one_integer(db, "SELECT count(*) FROM moved WHERE lookup IS NULL")
    db.execute("DROP TABLE moved")
    return unfit


def _make_moved(db: duckdb.DuckDBPyConnection, query_list: QueryList, chosen: str, rows_at_once: int) -> None:
    """The chosen rows of `imports`, with their lookups of the list's key. The cache is attached."""
    source = query_list.source
    values = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in values_sql(query_list).items())
    whole = " AND ".join(f"{quoted(column.name)} IS NOT NULL" for column in source.key)
    lookup_hash = (
        f"CASE WHEN {whole} THEN {keys.lookup_hash_sql(source.key, source.normalize)} END AS {quoted(NEW_LOOKUP)}"
    )
    db.execute("CREATE OR REPLACE TABLE moved AS FROM cache.imports LIMIT 0")
    rows = f"SELECT {quoted(STORED_ROW)}, {values} FROM cache.imports AS {quoted(STORED_ROW)} WHERE {chosen}"
    with record_batches(db, rows, rows_at_once) as reader:
        for batch in query_list.texts.all_whole(reader):
            table = pa.Table.from_batches([batch])
            for name, column in source.helpers({part.name: batch.column(part.name) for part in source.key}).items():
                table = table.append_column(name, column)
            db.register("batch", table)
            db.execute(
                f"INSERT INTO moved BY NAME SELECT * EXCLUDE ({quoted(NEW_LOOKUP)}) REPLACE ({quoted(NEW_LOOKUP)} AS lookup) "
                f"FROM (SELECT unnest({quoted(STORED_ROW)}), {lookup_hash} FROM batch)"
            )
            db.unregister("batch")


def values_sql(query_list: QueryList) -> dict[str, str]:
    """SQL for each key column out of a row's query, of the type that the list has; NULL if the query is of another key."""
    types, forms = query_list.key_types(), query_list.source.forms
    names = sorted(column.name for column in query_list.source.key)
    same_key = f"list_sort(json_keys(query)) = [{', '.join(map(literal, names))}]"
    return {
        column.name: f"CASE WHEN {same_key} THEN {_value_sql(column, types[column.name], forms.get(column.name))} END"
        for column in query_list.source.key
    }


def _value_sql(column: Column, kind: str, form: Form | None) -> str:
    text = f"json_extract_string(query, {literal(json_path(column.name))})"
    if form == "single" and column.kind == "number":
        text = f"TRY_CAST({text} AS FLOAT)::VARCHAR"
    elif form == "decimal" and column.kind == "string":
        text = f"regexp_replace({text}, {literal(TRAILING_ZEROS)}, {literal(WITHOUT_ZEROS)})"
    if column.kind == "integer":  # a cast alone would round
        text = f"regexp_extract({text}, '^[+-]?[0-9]+$')"
    return f"TRY_CAST({text} AS {kind})"


def stored_query_sql(key: Sequence[Column], named: Callable[[str], str] = quoted) -> str:
    """SQL for a lookup key as the JSON text that is stored with an import. named: SQL for a column of that name."""
    members = [
        f"{literal(encode_json(column.name) + ': ')} || {_json_sql(named(column.name), column)}" for column in key
    ]
    between = " || ', ' || "
    return f"'{{' || {between.join(members)} || '}}'"


def _json_sql(value: str, column: Column) -> str:
    if column.kind != "timestamp":
        return f"to_json({value})::VARCHAR"
    return f"'\"' || {time_text(value, zoned=column.zoned)} || '\"'"


def as_prediction(answer: Any, *, as_json: bool) -> str:
    """A value of a Parquet column as the JSON text of a prediction. as_json: a text is JSON already, and is checked.

    Raises ValueError, which says what is wrong after the value's name.
    """
    value = _plain(answer)
    if value is None:
        raise ValueError("is null: leave the row out, or give a value")
    if as_json and isinstance(value, str):
        try:
            text = encode_json(json.loads(value))
            text.encode()  # half a character can be read, as NaN can, but not written
        except (ValueError, RecursionError) as exc:
            raise ValueError(f"should be JSON, but is {value[:80]!r}: {exc}") from exc
        return text
    if not as_json and not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, default=_plain)
    try:
        return encode_json(value)
    except ValueError as exc:
        raise ValueError(f"cannot be JSON: {exc}") from exc


def _plain(value: Any) -> Any:
    """A value as JSON or text can hold it."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Decimal):
        return str(value)
    return value.isoformat() if isinstance(value, date | datetime | time) else value


# made once: it is called for each row
encode_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_plain).encode
