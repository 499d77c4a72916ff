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
from batchinfer.core.database import LIST_ROWS, record_batches
from batchinfer.core.duckdb_paths import parquet_rows
from batchinfer.core.home import JobData
from batchinfer.errors import StoreError, UsageError
from batchinfer.versions.layout import NAMES, PREDICTIONS, version_column
from batchinfer.versions.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be erased: a lookup key as people name it, recognised in every form in which it is stored.

    texts: each column's value.
    columns: of the key, as the job looks entries up.
    normalize: the steps that it applies to them.
    lookup_hash: of all that.
    """

    texts: Mapping[str, str]
    columns: tuple[Column, ...]
    normalize: tuple[str, ...]
    lookup_hash: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Raises UsageError for a value that is not of its column's kind."""
        values = [typed(self.texts[column.name], column) for column in self.columns]
        object.__setattr__(self, "lookup_hash", keys.lookup_hash(values, self.columns, self.normalize))

    @property
    def name(self) -> str:
        """For people."""
        return ", ".join(f"{name}={text}" for name, text in self.texts.items())

    def values(self) -> dict[str, Any]:
        return {column.name: typed(self.texts[column.name], column) for column in self.columns}

    def lookup_hash_by(self, columns: Sequence[Column], normalize: Sequence[str]) -> bytes | None:
        """Its hash where entries are looked up like this; None if they have other columns, or values of another kind."""
        if {column.name for column in columns} != self.texts.keys():
            return None
        try:
            return Entry(self.texts, tuple(columns), tuple(normalize)).lookup_hash
        except UsageError:
            return None

    def is_query(self, text: str | None) -> bool:
        """Whether a stored query, as JSON, asks for it."""
        try:
            query = json.loads(text or "null")
            if not isinstance(query, dict) or query.keys() != self.texts.keys():
                return False
            texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in query.items()}
            return Entry(texts, self.columns, self.normalize).lookup_hash == self.lookup_hash
        except (ValueError, UsageError):
            return False


@dataclass(frozen=True, slots=True)
class SearchedVersion:
    """A version or a candidate.

    name: as `diff` takes it.
    folder: where it is.
    manifest: what it says of itself.
    lookup_hashes: the hashes under which it holds the entry.
    searched: whether it could be searched: not if it has other key columns.
    """

    name: int | str
    folder: Path
    manifest: Manifest
    lookup_hashes: list[bytes]
    searched: bool

    @property
    def predictions(self) -> str:
        return parquet_rows(self.folder / PREDICTIONS)

    @property
    def quotes(self) -> bool:
        """Whether its gate's report quotes rows."""
        return any(check.examples for check in self.manifest.gate.checks)


@dataclass(frozen=True, slots=True)
class GenerationRef:
    """A generation as a version names it.

    run_id: the run that made it.
    created_at: when.
    text: what the model returned.
    """

    run_id: int
    created_at: datetime
    text: str


@dataclass(frozen=True, slots=True)
class Published:
    """The entry in versions and candidates.

    spellings: the values of its key, as they have them.
    generations: which its predictions were read from.
    """

    spellings: list[dict[str, Any]]
    generations: list[GenerationRef]


def all_folders(data: JobData) -> dict[int | str, tuple[Path, Manifest]]:
    """Every version and candidate. Raises StoreError for one that cannot be searched."""
    found: dict[int | str, tuple[Path, Manifest]] = {}
    for path in [*sorted(data.versions.glob("*/")), *sorted(data.rejected.glob("*/"))]:
        try:
            manifest = Manifest.read(path)
        except StoreError as exc:
            raise StoreError(
                f"{exc} It cannot be searched: remove {path}, or repair it, then run this command again."
            ) from exc
        found[int(path.name) if path.name.isdigit() else path.name] = path, manifest
    return found


def search(
    db: duckdb.DuckDBPyConnection, name: int | str, folder: Path, manifest: Manifest, entry: Entry
) -> SearchedVersion:
    """Looks for the entry in one version or candidate. Raises StoreError where it is damaged."""
    if {column.name for column in manifest.key} != entry.texts.keys():
        return SearchedVersion(name, folder, manifest, [], searched=False)
    find = _find_hash if manifest.normalize == entry.normalize else _find_spellings
    lookup_hashes = list[bytes]()
    for path in (folder / file for file in (PREDICTIONS, NAMES) if file in manifest.files):
        try:
            lookup_hashes += find(db, parquet_rows(path), manifest, entry)
        except duckdb.Error as exc:
            reason = str(exc).splitlines()[0]
            raise StoreError(
                f"{path} cannot be searched: {reason}. Remove {folder}, then run this command again."
            ) from exc
    return SearchedVersion(name, folder, manifest, lookup_hashes, searched=True)


def _find_hash(db: duckdb.DuckDBPyConnection, parquet: str, manifest: Manifest, entry: Entry) -> list[bytes]:
    own = entry.lookup_hash_by(manifest.key, manifest.normalize)
    sql = f"SELECT lookup FROM {parquet} WHERE lookup IN ({blobs([own] if own else []) or 'NULL'})"
    return [bytes(found) for (found,) in db.execute(sql).fetchall()]


def _find_spellings(
    db: duckdb.DuckDBPyConnection, parquet: str, manifest: Manifest, entry: Entry, rows_at_once: int = LIST_ROWS
) -> list[bytes]:
    """Spelled as the version has it, the entry may have another hash there, or several."""
    names = ", ".join(version_column(column.name) for column in manifest.key)
    own = entry.lookup_hash_by(manifest.key, entry.normalize)
    lookup_hashes = []
    with record_batches(db, f"SELECT lookup, {names} FROM {parquet}", rows_at_once) as reader:
        for batch in reader:
            for lookup_hash, *values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if keys.lookup_hash(values, manifest.key, entry.normalize) == own:
                    lookup_hashes.append(lookup_hash)
    return lookup_hashes


def published(db: duckdb.DuckDBPyConnection, versions: Sequence[SearchedVersion]) -> Published:
    """How versions spell the entry, and which generations they have it from."""
    found = Published([], [])
    for version in versions:
        if version.lookup_hashes:
            names = [column.name for column in version.manifest.key]
            rows = db.execute(
                f"SELECT {', '.join(map(version_column, names))}, run_id, generated_at, raw_text FROM {version.predictions} "
                f"WHERE lookup IN ({blobs(version.lookup_hashes)})"
            ).fetchall()
            for *values, run_id, made, text in rows:
                found.spellings.append(dict(zip(names, values, strict=True)))
                if run_id is not None:
                    found.generations.append(GenerationRef(run_id, made, text))
    return found


def blobs(values: Iterable[bytes]) -> str:
    """A list of binary values as SQL."""
    return ", ".join(f"unhex('{value.hex()}')" for value in values)
