"""Opens a published version and looks entries up. Imports neither duckdb nor pyarrow: it is what serving stands on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb

from batchinfer import keys
from batchinfer.errors import StoreError, UsageError
from batchinfer.keys import Column

FORMAT = 1
MANIFEST = "manifest.json"
LOOKUP = "lookup.lmdb"
PREDICTIONS = "predictions.parquet"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a version says of itself. `content` is all of it: an open map."""

    version: int | None
    job: str
    rows: int
    key: tuple[Column, ...]
    normalize: tuple[str, ...]
    files: dict[str, dict[str, Any]]
    content: dict[str, Any]

    @classmethod
    def read(cls, folder: Path, *, digest: str | None = None) -> Manifest:
        """The manifest in a version's folder. Raises StoreError if it is missing, damaged, or of an unknown format."""
        path = folder / MANIFEST
        try:
            data = path.read_bytes()
            content = json.loads(data)
            number = content["format"]
            if number != FORMAT:
                raise StoreError(f"{folder} has format {number}, and this batchinfer knows {FORMAT}: upgrade it.")
            manifest = cls(
                version=content["version"],
                job=content["job"],
                rows=content["rows"],
                key=tuple(Column(column["name"], column["kind"]) for column in content["key"]),
                normalize=tuple(content["normalize"]),
                files=content["files"],
                content=content,
            )
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise StoreError(f"{path} is missing or damaged: {exc!r}.") from exc
        if digest is not None and hashlib.sha256(data).hexdigest() != digest:
            raise StoreError(f"{path} is not the manifest that was published: its checksum differs.")
        return manifest

    def lookup_key(self, query: Mapping[str, Any]) -> bytes:
        """The 16 bytes under which a query's answer lies. Raises UsageError for missing or unknown columns."""
        names = [column.name for column in self.key]
        unknown = [name for name in query if name not in names]
        missing = [name for name in names if name not in query]
        if unknown or missing:
            said = [f"{', '.join(missing)} is missing"] if missing else []
            said += [f"{', '.join(unknown)} is not part of it"] if unknown else []
            raise UsageError(f"The lookup key of {self.job} is {', '.join(names)}: {' and '.join(said)}.")
        return keys.lookup_key([query[name] for name in names], self.key, self.normalize)


class Snapshot:
    """A version, opened for lookups. Open one path at most once per process."""

    def __init__(self, folder: Path, *, digest: str | None = None) -> None:
        """digest: SHA-256 of the manifest, if known. Raises StoreError."""
        self.folder = folder
        self.manifest = Manifest.read(folder, digest=digest)
        path = folder / LOOKUP
        try:
            if path.stat().st_size != self.manifest.files[LOOKUP]["size"]:
                raise StoreError(f"{path} is not whole: its size differs from the manifest's.")
            # No lock file: the folder may be read-only, and nobody writes a published file.
            self._environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False, max_spare_txns=1)
        except (OSError, KeyError, lmdb.Error) as exc:
            raise StoreError(f"{path} cannot be opened: {exc}.") from exc

    def get(self, query: Mapping[str, Any]) -> bytes | None:
        """The body of a hit, as JSON, or None."""
        with self._environment.begin() as transaction:
            body: bytes | None = transaction.get(self.manifest.lookup_key(query))
            return body

    def __len__(self) -> int:
        return int(self._environment.stat()["entries"])

    def verify(self) -> None:
        """Compares every file with the manifest. Raises StoreError."""
        for name, facts in self.manifest.files.items():
            try:
                with (self.folder / name).open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as exc:
                raise StoreError(f"{self.folder / name} is missing or cannot be read: {exc.strerror}.") from exc
            if digest != facts["sha256"]:
                raise StoreError(f"{self.folder / name} is damaged: its checksum differs from the manifest's.")
        if len(self) != self.manifest.rows:
            raise StoreError(
                f"{self.folder / LOOKUP} holds {len(self)} entries, the manifest says {self.manifest.rows}."
            )

    def close(self) -> None:
        self._environment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
