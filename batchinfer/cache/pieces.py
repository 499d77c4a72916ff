"""Long texts in the cache: `long_texts` holds them in pieces, and the other tables tokens of them (`core.long_texts`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa

from batchinfer.core.database import one_integer, record_batches
from batchinfer.core.long_json import LONG_JSON, LONG_KEY, shortened_json
from batchinfer.core.long_texts import (
    CLOSE,
    DIGESTS_SQL,
    LONG,
    MOST_TEXT,
    OPEN_JSON,
    LongTexts,
    is_long,
    lacking,
    text_digest,
    token,
    whole,
)  # fmt: skip
from batchinfer.core.memory import batch_bytes
from batchinfer.core.sql import literal

PIECE = 1024  # characters; DuckDB holds 122,880 rows in memory until it writes them
PIECES_AT_ONCE = 2048
PIECES = pa.schema({"digest": pa.binary(), "part": pa.int32(), "text": pa.string()})
LONG_COLUMNS = {
    "generations": ["text", "prediction"],
    "failures": ["query"],
    "imports": ["query", "prediction", "value"],
}
ROWS_AT_ONCE = 1000
PLAIN = ("text",)  # columns that may be long
AS_JSON = {"prediction": LONG_JSON, "query": LONG_KEY, "value": LONG_JSON}  # those of JSON, with how long they may be
OLD_TOKEN = f'"{OPEN_JSON}[0-9a-f]{{144}}{CLOSE}"'  # of JSON, without the count that it has now


class NewTexts:
    """The long texts of rows that are about to be stored."""

    def __init__(self) -> None:
        self._texts: dict[bytes, bytes] = {}

    def short(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row of the cache with tokens in place of its long texts."""
        plain = {name: token(row[name], self._keep) for name in PLAIN if row.get(name) and is_long(row[name])}
        as_json = {name: shortened_json(row[name], self._keep, most) for name, most in AS_JSON.items() if row.get(name)}
        return {**row, **plain, **as_json}

    def _keep(self, digest: bytes, data: bytes) -> None:
        self._texts[digest] = data

    def store(self, db: duckdb.DuckDBPyConnection, table: str = "long_texts") -> None:
        """Puts them into the cache that is open, or the table of one that is attached."""
        insert(db, table, self._texts, self._texts.__getitem__)


def insert(db: duckdb.DuckDBPyConnection, table: str, digests: Iterable[bytes], read: Callable[[bytes], bytes]) -> None:
    """Puts the texts that the table does not have yet into it. read: gives the text of a digest, in UTF-8."""
    wanted = list(digests)
    if not wanted:
        return
    db.register("wanted", pa.table({"digest": pa.array(wanted, pa.binary())}))
    rows = db.execute(f"SELECT DISTINCT digest FROM wanted ANTI JOIN {table} USING (digest)").fetchall()
    db.unregister("wanted")
    pieces, size, most = list[tuple[bytes, int, str]](), 0, batch_bytes()
    for (digest,) in rows:
        text = read(bytes(digest)).decode()
        pieces += [(digest, part, text[start : start + PIECE]) for part, start in enumerate(range(0, len(text), PIECE))]
        size += len(text)
        if size >= most:
            _insert_pieces(db, table, pieces)
            pieces, size = [], 0
    _insert_pieces(db, table, pieces)


def _insert_pieces(db: duckdb.DuckDBPyConnection, table: str, pieces: Sequence[tuple[bytes, int, str]]) -> None:
    if pieces:
        columns = [
            pa.array(column, field.type) for column, field in zip(zip(*pieces, strict=True), PIECES, strict=True)
        ]
        db.register("pieces", pa.table(columns, schema=PIECES))
        db.execute(f"INSERT INTO {table} FROM pieces")
        db.unregister("pieces")


def shorten_stored(db: duckdb.DuckDBPyConnection, migration: str) -> None:
    """After the migrations that are about them: puts tokens in place of the long texts that the cache holds whole."""
    if "TABLE long_texts" in migration:
        shorten_whole(db)
    elif "long_texts" in migration:
        _shorten_json(db)


def shorten_whole(db: duckdb.DuckDBPyConnection, schema: str = "") -> None:
    """Puts tokens in place of long texts in rows that have none. schema: of the cache, with a dot, where it is attached."""
    for table, columns in LONG_COLUMNS.items():
        size = " + ".join(f"coalesce(strlen({name}), 0)" for name in columns)
        is_whole = " OR ".join(f"strlen({name}) > {LONG}" for name in columns)
        sql = f"SELECT rowid, {size} FROM {schema}{table} WHERE ({is_whole}) AND len({digests_sql(columns)}) = 0"
        for rowids in _batches(db.execute(sql).fetchall()):
            _shorten_rows(db, schema, table, rowids)


def _shorten_json(db: duckdb.DuckDBPyConnection) -> None:
    """Puts tokens in place of what is long in JSON that was not long to older programs, or was one token to them."""
    for table, columns in LONG_COLUMNS.items():
        own = [name for name in columns if name in AS_JSON]
        size = " + ".join(f"coalesce(strlen({name}), 0) + {MOST_TEXT} * len({digests_sql([name])})" for name in own)
        is_old = " OR ".join(
            f"strlen({name}) > {LONG_JSON} OR regexp_full_match({name}, {literal(OLD_TOKEN)})" for name in own
        )
        for rowids in _batches(db.execute(f"SELECT rowid, {size} FROM {table} WHERE {is_old}").fetchall()):
            _shorten_rows(db, "", table, rowids, partial(whole_stored, db))


def _batches(rows: Iterable[tuple[int, int]]) -> Iterator[list[int]]:
    """The numbers of rows of some bytes each, as many together as may be in memory."""
    batch, size, most = list[int](), 0, batch_bytes()
    for rowid, row_bytes in rows:
        batch.append(rowid)
        size += row_bytes
        if len(batch) == ROWS_AT_ONCE or size >= most:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _shorten_rows(
    db: duckdb.DuckDBPyConnection,
    schema: str,
    table: str,
    rowids: Sequence[int],
    made_whole: Callable[[str], str] | None = None,
) -> None:
    """made_whole: gives cells of JSON their texts back first."""
    columns, numbers = LONG_COLUMNS[table], ", ".join(map(str, rowids))
    rows = db.execute(f"SELECT rowid, {', '.join(columns)} FROM {schema}{table} WHERE rowid IN ({numbers})").fetchall()
    new = NewTexts()
    cells = [dict(zip(("id", *columns), row, strict=True)) for row in rows]
    if made_whole is not None:
        cells = [{name: made_whole(cell) if name in AS_JSON else cell for name, cell in row.items()} for row in cells]
    short = [new.short(row) for row in cells]
    new.store(db, f"{schema}long_texts")
    db.register("short", pa.Table.from_pylist(short))
    changed = ", ".join(f"{name} = s.{name}" for name in columns)
    db.execute(f"UPDATE {schema}{table} AS stored SET {changed} FROM short s WHERE stored.rowid = s.id")
    db.unregister("short")


def drop_incomplete(db: duckdb.DuckDBPyConnection, schema: str) -> dict[str, int]:
    """Removes the texts of a cache that lack pieces, and the rows that name them; how many rows, by table."""
    texts = all_texts(db, f"{schema}long_texts")
    found = pa.array([digest.hex() for digest, data in texts if digest == text_digest(data)], pa.string())
    db.register("complete", pa.table({"digest": found}))
    gone = {}
    for table, columns in LONG_COLUMNS.items():
        names = f"SELECT rowid AS id, unnest({digests_sql(columns)}) AS digest FROM {schema}{table}"
        lacking_some = f"SELECT id FROM ({names}) ANTI JOIN complete USING (digest)"
        gone[table] = one_integer(db, f"DELETE FROM {schema}{table} WHERE rowid IN ({lacking_some})")
    db.execute(f"DELETE FROM {schema}long_texts WHERE lower(hex(digest)) NOT IN (SELECT digest FROM complete)")
    db.unregister("complete")
    return gone


def insert_named(db: duckdb.DuckDBPyConnection, rows: str, texts: LongTexts, cache: str = "cache") -> None:
    """Puts the texts that a query on a scratch database gives tokens of into the cache that is attached to it.

    cache: the schema that it is attached as.
    """
    if texts.any:
        columns = [name for name, *_ in db.execute(f"DESCRIBE {rows}").fetchall() if name in (*PLAIN, *AS_JSON)]
        named = db.execute(f"SELECT DISTINCT unnest({digests_sql(columns)}) FROM ({rows})").fetchall()
        insert(db, f"{cache}.long_texts", [bytes.fromhex(digest) for (digest,) in named], texts.read)


def digests_sql(columns: Sequence[str]) -> str:
    """SQL for the digests that a row's columns have tokens of, a list of hexadecimal digits."""
    found = (f"regexp_extract_all(coalesce({name}, ''), {literal(DIGESTS_SQL)}, 1)" for name in columns)
    return " || ".join(found)


def stored_text(db: duckdb.DuckDBPyConnection, digest: bytes, table: str = "long_texts") -> bytes:
    """One text of the cache that is open, in UTF-8. Raises StoreError if it, or a piece of it, is not there."""
    rows = db.execute(f"SELECT part, text FROM {table} WHERE digest = ?", [digest]).fetchall()
    data = "".join(dict(sorted(rows)).values()).encode()
    if text_digest(data) != digest:
        raise lacking(digest)
    return data


def whole_stored(db: duckdb.DuckDBPyConnection, cell: str) -> str:
    """A cell of the cache that is open with the texts that its tokens stand for."""
    return cell and whole(cell, partial(stored_text, db))


def all_texts(db: duckdb.DuckDBPyConnection, table: str = "long_texts") -> Iterator[tuple[bytes, bytes]]:
    """Digests and texts of the cache that is open; a text that lacks pieces is not that of its digest."""
    last, parts = b"", list[str]()
    with record_batches(db, f"SELECT digest, text FROM {table}", PIECES_AT_ONCE) as reader:
        for batch in reader:
            for digest, text in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if digest != last and parts:
                    yield last, "".join(parts).encode()
                    parts = []
                last = digest
                parts.append(text)
    if parts:
        yield last, "".join(parts).encode()
