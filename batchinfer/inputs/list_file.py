"""One Parquet file of a list: its own columns, and those that the folders above it name (lang=de)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.errors import InputError

NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True)
class ListFile:
    """A file, and what its place below the list's folder says of all its rows.

    path: where it is.
    partitions: columns that folders name, each with its text or null; a column of the file's own goes before them.
    """

    path: Path
    partitions: tuple[tuple[str, str | None], ...] = ()

    @classmethod
    def below(cls, folder: Path, path: Path) -> Self:
        """A file that was found below a list's folder."""
        named = [part.partition("=") for part in path.relative_to(folder).parts[:-1] if part.find("=") > 0]
        return cls(path, tuple((unquote(name), None if text == NULL else unquote(text)) for name, _, text in named))

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    def schema(self) -> pa.Schema:
        """All columns. Raises InputError."""
        try:
            own = pq.read_schema(self.path)
        except (pa.ArrowInvalid, OSError) as exc:
            raise InputError(f"{self.path} is not a Parquet file, or cannot be read: {exc}") from exc
        return pa.schema([*own, *(pa.field(name, pa.string()) for name, _ in self._beyond(own))])

    @property
    def num_rows(self) -> int:
        """How many rows there are. Raises what Arrow raises."""
        return int(pq.read_metadata(self.path).num_rows)

    def batches(self, names: Sequence[str], rows_at_once: int) -> Iterator[pa.RecordBatch]:
        """These columns of all rows. Raises InputError for a file that breaks off."""
        with self._read() as file:
            beyond = {name: text for name, text in self._beyond(file.schema_arrow) if name in names}
            own = [name for name in names if name not in beyond]
            for batch in file.iter_batches(rows_at_once, columns=own):
                yield _with_partitions(batch, beyond)

    @contextlib.contextmanager
    def _read(self) -> Iterator[pq.ParquetFile]:
        try:
            with pq.ParquetFile(self.path) as file:
                yield file
        except (pa.ArrowInvalid, OSError) as exc:
            raise InputError(f"{self.path} is truncated or corrupt: {exc}") from exc

    def _beyond(self, own: pa.Schema) -> list[tuple[str, str | None]]:
        """The columns that only the folders have; the innermost folder's where two name the same."""
        return [(name, text) for name, text in dict(self.partitions).items() if name not in own.names]


def _with_partitions(batch: pa.RecordBatch, partitions: dict[str, str | None]) -> pa.RecordBatch:
    for name, text in partitions.items():
        batch = batch.append_column(name, pa.repeat(pa.scalar(text, pa.string()), batch.num_rows))
    return batch
