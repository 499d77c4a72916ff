"""One file of a list, as Parquet: its own columns, and those that the folders above it name (lang=de)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.core.parquet_batches import row_batches
from batchinfer.core.sql import literal
from batchinfer.errors import InputError, shortened

T = TypeVar("T")
MOST_LINE = 64 << 20  # characters or bytes of a text file's line; a file without line ends would else be read whole
NULL = "__HIVE_DEFAULT_PARTITION__"
MAGIC = b"PAR1"  # what a Parquet file begins with
CONVERTIBLE = {".csv", ".tsv", ".json", ".jsonl", ".ndjson"}  # suffixes that DuckDB knows by themselves
SPREADSHEETS = {".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers"}
PACKED = {".gz", ".zip", ".zst", ".bz2", ".xz", ".7z"}
LONGEST = 200  # characters of what Arrow says of a damaged file


class NoListFile(InputError):
    """A path, folder or glob names no file of a list."""


def globbed(folder: Path, pattern: str) -> list[Path]:
    """What a pattern finds below a folder. Raises InputError for one that says nothing."""
    if any("**" in part and part != "**" for part in Path(pattern).parts):
        raise InputError(
            f"{folder / pattern} has ** beside other characters: * stands for any of a name, and ** for folders in folders, alone between "
            "slashes."
        )
    return list(folder.glob(pattern))


@dataclass(frozen=True, slots=True)
class ListFile:
    """A file, and what its place below the list's folder says of all its rows.

    path: where its rows are, as Parquet.
    partitions: columns that folders name, each with its text or null; a column of the file's own goes before them.
    made_of: the file that its rows were read from, if that is no Parquet; None if it is.
    found_by: what names it beside the job file, such as the path of a date; None if the job file does.
    """

    path: Path
    partitions: tuple[tuple[str, str | None], ...] = ()
    made_of: Path | None = None
    found_by: str | None = None

    @classmethod
    def below(cls, folder: Path, path: Path) -> Self:
        """A file that was found below a list's folder."""
        named = [part.partition("=") for part in path.relative_to(folder).parts[:-1] if part.find("=") > 0]
        return cls(path, tuple((unquote(name), None if text == NULL else unquote(text)) for name, _, text in named))

    def __str__(self) -> str:
        return str(self.original)

    @property
    def original(self) -> Path:
        """The file that people know."""
        return self.made_of or self.path

    @property
    def name(self) -> str:
        return self.original.name

    def schema(self) -> pa.Schema:
        """All columns. Raises InputError."""
        try:
            own = pq.read_schema(self.path)
        except (pa.ArrowInvalid, OSError) as exc:
            raise unreadable(self.path, exc) from exc
        return pa.schema([*own, *(pa.field(name, pa.string()) for name, _ in self._beyond(own))])

    @property
    def num_rows(self) -> int:
        """How many rows there are. Raises what Arrow raises."""
        return int(pq.read_metadata(self.path).num_rows)

    def batches(self, names: Sequence[str], rows_at_once: int) -> Iterator[pa.RecordBatch]:
        """These columns of all rows. Raises InputError for a file that is truncated or corrupt."""
        try:
            beyond = {name: text for name, text in self._beyond(pq.read_schema(self.path)) if name in names}
            own = [name for name in names if name not in beyond]
            for batch in row_batches(self.path, own, rows_at_once):
                yield _with_partitions(batch, beyond)
        except (pa.ArrowInvalid, OSError) as exc:
            raise unreadable(self.path, exc) from exc

    def _beyond(self, own: pa.Schema) -> list[tuple[str, str | None]]:
        """The columns that only the folders have; the innermost folder's where two name the same."""
        return [(name, text) for name, text in dict(self.partitions).items() if name not in own.names]


def _with_partitions(batch: pa.RecordBatch, partitions: dict[str, str | None]) -> pa.RecordBatch:
    for name, text in partitions.items():
        batch = batch.append_column(name, pa.repeat(pa.scalar(text, pa.string()), batch.num_rows))
    return batch


def is_parquet(path: Path) -> bool:
    """Whether a file begins as Parquet does. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def readable(path: Path, parts: Iterable[T]) -> Iterator[T]:
    """What a file is read into. Raises InputError where it cannot be, so that other OSErrors are of what is written of it."""
    try:
        yield from parts
    except OSError as exc:
        raise InputError(f"{path} cannot be read: {exc.strerror}.") from exc


def unreadable(path: Path, exc: Exception) -> InputError:
    """What to say of a file that Arrow could not read as Parquet."""
    if isinstance(exc, FileNotFoundError):
        return InputError(f"There is no file {path}", fix="check the name.")
    if isinstance(exc, OSError) and exc.errno:
        return InputError(f"{path} cannot be read: {os.strerror(exc.errno)}.")
    if not is_parquet(path):
        return InputError(f"{path} is not Parquet", fix=conversion(path))
    why = shortened(next(iter(str(exc).splitlines()), repr(exc)), LONGEST).removesuffix(".")
    return InputError(f"{path} is truncated or corrupt ({why})", fix="copy it again, or write it again.")


def conversion(path: Path) -> str:
    """How to make Parquet of a file, a sentence."""
    if path.suffix.lower() in SPREADSHEETS:
        return "save the spreadsheet as CSV (in Excel: CSV UTF-8), which lists and imports can be."
    if path.suffix.lower() in PACKED:
        return "unpack it."
    if path.suffix.lower() not in CONVERTIBLE:
        return "write it as Parquet, or as CSV or JSON lines in a file whose name ends in .csv or .jsonl."
    return (
        f"convert it, for example with DuckDB: COPY (FROM {literal(str(path))}) "
        f"TO {literal(str(path.with_suffix('.parquet')))}."
    )
