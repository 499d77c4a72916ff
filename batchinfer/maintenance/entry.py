"""One entry, by its lookup key: recognised in queries, and found in versions and candidates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from batchinfer.core import keys
from batchinfer.core.columns import Column, typed
from batchinfer.core.home import JobData
from batchinfer.core.keys import lookup_key
from batchinfer.core.sql import literal
from batchinfer.errors import StoreError, UsageError
from batchinfer.versions.layout import PREDICTIONS, version_column
from batchinfer.versions.manifest import Manifest

BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be forgotten: a lookup key as people name it, recognised in every form in which it is stored.

    texts: each column's value. columns, normalize: how the job looks entries up. key: its hash then.
    """

    texts: Mapping[str, str]
    columns: tuple[Column, ...]
    normalize: tuple[str, ...]
    key: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Raises UsageError for a value that is not of its column's kind."""
        values = [typed(self.texts[column.name], column) for column in self.columns]
        object.__setattr__(self, "key", keys.lookup_key(values, self.columns, self.normalize))

    def values(self) -> dict[str, Any]:
        return {column.name: typed(self.texts[column.name], column) for column in self.columns}

    def lookup(self, columns: Sequence[Column], normalize: Sequence[str]) -> bytes | None:
        """Its hash where entries are looked up like this; None if they have other columns, or values of another kind."""
        if {column.name for column in columns} != self.texts.keys():
            return None
        try:
            return Entry(self.texts, tuple(columns), tuple(normalize)).key
        except UsageError:
            return None

    def is_query(self, text: str | None) -> bool:
        """Whether a stored query, as JSON, asks for it."""
        try:
            query = json.loads(text or "null")
            if not isinstance(query, dict) or query.keys() != self.texts.keys():
                return False
            texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in query.items()}
            return Entry(texts, self.columns, self.normalize).key == self.key
        except (ValueError, UsageError):
            return False


@dataclass(frozen=True, slots=True)
class Kept:
    """A version or a candidate. name: as `diff` takes it. lookups: the hashes under which it holds the entry."""

    name: int | str
    folder: Path
    manifest: Manifest
    lookups: list[bytes]
    searched: bool

    @property
    def predictions(self) -> str:
        return f"read_parquet({literal(str(self.folder / PREDICTIONS))})"

    @property
    def quotes(self) -> bool:
        """Whether its gate's report quotes rows."""
        return any(check.examples for check in self.manifest.gate.checks)


def folders(data: JobData) -> dict[int | str, tuple[Path, Manifest]]:
    """Every version and candidate. Raises StoreError for one that cannot be searched."""
    found: dict[int | str, tuple[Path, Manifest]] = {}
    for path in [*sorted(data.versions.glob("*/")), *sorted(data.rejected.glob("*/"))]:
        try:
            manifest = Manifest.read(path)
        except StoreError as exc:
            raise StoreError(f"{exc} It cannot be searched: remove {path}, or mend it, then forget again.") from exc
        found[int(path.name) if path.name.isdigit() else path.name] = path, manifest
    return found


def search(db: duckdb.DuckDBPyConnection, name: int | str, folder: Path, manifest: Manifest, entry: Entry) -> Kept:
    """Looks for the entry in one version or candidate."""
    if {column.name for column in manifest.key} != entry.texts.keys():
        return Kept(name, folder, manifest, [], searched=False)
    parquet = f"read_parquet({literal(str(folder / PREDICTIONS))})"
    own = entry.lookup(manifest.key, manifest.normalize)
    try:
        if manifest.normalize == entry.normalize:
            sql = f"SELECT lookup FROM {parquet} WHERE lookup IN ({blobs([own] if own else []) or 'NULL'})"
            return Kept(name, folder, manifest, [bytes(key) for (key,) in db.execute(sql).fetchall()], searched=True)
        # Spelled as the version had it, the entry may have another hash there.
        names = ", ".join(version_column(column.name) for column in manifest.key)
        own = entry.lookup(manifest.key, entry.normalize)
        cursor, lookups = db.cursor(), []
        for batch in cursor.sql(f"SELECT lookup, {names} FROM {parquet}").to_arrow_reader(BATCH_ROWS):
            for key, *values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if lookup_key(values, manifest.key, entry.normalize) == own:
                    lookups.append(key)
        cursor.close()
    except duckdb.Error as exc:
        reason = str(exc).splitlines()[0]
        raise StoreError(
            f"{folder / PREDICTIONS} cannot be searched: {reason}. Remove {folder}, then forget again."
        ) from exc
    return Kept(name, folder, manifest, lookups, searched=True)


def published(
    db: duckdb.DuckDBPyConnection, kept: Sequence[Kept]
) -> tuple[list[dict[str, Any]], list[tuple[int, datetime, str]]]:
    """How versions spell the entry, and which generations they have it from: (run, time, text)."""
    spelled, pointers = [], []
    for place in kept:
        if place.lookups:
            names = [column.name for column in place.manifest.key]
            rows = db.execute(
                f"SELECT {', '.join(map(version_column, names))}, run_id, generated_at, raw_text FROM {place.predictions} "
                f"WHERE lookup IN ({blobs(place.lookups)})"
            ).fetchall()
            for *values, run_id, made, text in rows:
                spelled.append(dict(zip(names, values, strict=True)))
                pointers += [(run_id, made, text)] if run_id is not None else []
    return spelled, pointers


def blobs(values: Iterable[bytes]) -> str:
    """A list of binary values as SQL."""
    return ", ".join(f"unhex('{value.hex()}')" for value in values)
