"""What a candidate would change of a version: how many entries, and a few of them. Hashes are compared, not texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import duckdb

from batchinfer.core.columns import Column
from batchinfer.core.database import one_integer
from batchinfer.core.long_texts import LONG, MARKS, LongTexts
from batchinfer.core.sql import listed, query_json
from batchinfer.errors import shortened
from batchinfer.publish.predictions_file import version_rows
from batchinfer.versions.manifest import Manifest

SHOWN = 3  # examples of each kind of change
NOTHING = (None, None)  # neither query nor prediction


class ChangeKind(StrEnum):
    """How an entry differs."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Entries:
    """What is compared.

    rows_sql: a relation with lookup_hash, prediction and what a version has of an entry.
    query_sql: the lookup key of its rows as JSON.
    """

    rows_sql: str
    query_sql: str

    @classmethod
    def of_version(cls, db: duckdb.DuckDBPyConnection, texts: LongTexts, folder: Path, key: Sequence[Column]) -> Self:
        """Those of a version or a candidate. key: its own."""
        return cls.of_table(f"({version_rows(db, texts, folder, key)})", key)

    @classmethod
    def of_table(cls, rows_sql: str, key: Sequence[Column]) -> Self:
        """Those of a table that has the list's columns."""
        return cls(rows_sql, f"{query_json(key, listed)}::VARCHAR")


@dataclass(frozen=True, slots=True)
class ChangedEntry:
    """An entry that differs.

    change: how.
    query: its lookup key.
    old: the prediction that is served; None for one that is added.
    new: the prediction that would be; None for one that is removed.
    """

    change: ChangeKind
    query: dict[str, Any]
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class ServedChanges:
    """What a candidate changes of what is served.

    added: keys that are not served yet.
    removed: keys that would be served no more.
    changed: keys whose prediction differs.
    examples: a few of each; none where nothing is served yet.
    """

    added: int = 0
    removed: int = 0
    changed: int = 0
    examples: tuple[ChangedEntry, ...] = ()

    def __str__(self) -> str:
        return f"+{self.added:,} −{self.removed:,} ~{self.changed:,}"

    def to_json(self) -> dict[str, Any]:
        """As reports have it."""
        return asdict(self) | {"examples": [asdict(entry) for entry in self.examples]}


@dataclass(frozen=True, slots=True)
class Compared:
    """A candidate against a version.

    served: entries of the version.
    changes: of all entries.
    unexplained: of the changed entries those that people did not correct.
    equal: whether all bodies are.
    """

    served: int
    changes: ServedChanges
    unexplained: int
    equal: bool


def compare_entries(
    db: duckdb.DuckDBPyConnection,
    texts: LongTexts,
    new: Entries,
    version: Path | None,
    corrections: str = "()",
    shown: int = SHOWN,
) -> Compared:
    """Compares what would be published with a version, or with nothing.

    texts: those that tables of the database have tokens of.
    corrections: SQL for the sources whose word is a correction of a person. shown: examples of each kind.
    """
    old = None if version is None else Entries.of_version(db, texts, version, Manifest.read(version).key)
    served = 0 if old is None else one_integer(db, f"SELECT count(*) FROM {old.rows_sql}")
    if old is None or not served:
        added = one_integer(db, f"SELECT count(*) FROM {new.rows_sql}")
        return Compared(0, ServedChanges(added), 0, equal=old is not None and not added)
    # A join that holds all texts would not fit into the memory that it may have.
    corrected = "false" if corrections == "()" else f"source IN {corrections}"
    hashed = (
        f"SELECT lookup_hash, {corrected} AS corrected, md5_number(prediction) AS prediction, "
        "md5_number(json_array(md5(prediction), scores, score, source, model, generated_at)) AS body"
    )
    tests = ("b.lookup_hash IS NULL", "e.lookup_hash IS NULL", "e.prediction <> b.prediction")
    counts = ", ".join(f"count(*) FILTER ({test})" for test in tests)
    first = ", ".join(f"min(coalesce(e.lookup_hash, b.lookup_hash), {shown}) FILTER ({test})" for test in tests)
    row = db.execute(
        f"""SELECT {counts}, {first},
                   count(*) FILTER (e.prediction <> b.prediction AND NOT e.corrected), count(*) FILTER (e.body <> b.body)
        FROM ({hashed} FROM {new.rows_sql}) e FULL JOIN ({hashed} FROM {old.rows_sql}) b
             ON e.lookup_hash = b.lookup_hash"""
    ).fetchall()[0]
    kinds = list(zip(ChangeKind, row[3:6], strict=True))
    examples = tuple(
        entry for kind, lookup_hashes in kinds for entry in _examples(db, texts, kind, lookup_hashes or [], new, old)
    )
    changes = ServedChanges(row[0], row[1], row[2], examples)
    return Compared(served, changes, row[6], equal=not (row[0] or row[1] or row[7]))


def _examples(
    db: duckdb.DuckDBPyConnection,
    texts: LongTexts,
    kind: ChangeKind,
    lookup_hashes: Sequence[bytes],
    new: Entries,
    old: Entries,
) -> list[ChangedEntry]:
    """The entries of a few keys that differ in one way."""
    before = {} if kind == ChangeKind.ADDED else _found(db, texts, old, lookup_hashes)
    after = {} if kind == ChangeKind.REMOVED else _found(db, texts, new, lookup_hashes)
    found = []
    for lookup_hash in lookup_hashes:
        (query, value), (old_query, old_value) = after.get(lookup_hash, NOTHING), before.get(lookup_hash, NOTHING)
        found.append(ChangedEntry(kind, json.loads(query or old_query or "{}"), old_value, value))
    return found


def _found(
    db: duckdb.DuckDBPyConnection, texts: LongTexts, entries: Entries, lookup_hashes: Sequence[bytes]
) -> dict[bytes, tuple[str, str]]:
    """Lookup key and prediction of the entries with these lookup hashes; of long texts the beginning."""
    if not lookup_hashes:
        return {}
    rows = db.execute(
        f"SELECT lookup_hash, {entries.query_sql}, prediction FROM {entries.rows_sql} "
        f"WHERE lookup_hash IN ({', '.join('?' * len(lookup_hashes))})",
        list(lookup_hashes),
    ).fetchall()
    return {bytes(row[0]): (_shown(row[1], texts), _shown(row[2], texts)) for row in rows}


def _shown(text: str, texts: LongTexts) -> str:
    """A cell of which a report has no more than the beginning, if it is long; JSON stays JSON."""
    if not MARKS.search(text):
        return text
    whole = texts.whole(text)
    try:
        return json.dumps(_beginnings(json.loads(whole)), ensure_ascii=False)
    except ValueError:
        return shortened(whole, LONG)


def _beginnings(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _beginnings(part) for name, part in value.items()}
    return shortened(value, LONG) if isinstance(value, str) else value
