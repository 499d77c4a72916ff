"""The list that `init` makes a job for: copied into its folder, or used where it lies."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.core.files import fault_of_path, real_path
from batchinfer.errors import UsageError, shortened
from batchinfer.inputs.convert import stored, stored_type
from batchinfer.inputs.files import find_files, is_text_file, of_path, parquet_of
from batchinfer.inputs.list_file import unreadable
from batchinfer.job.date_pattern import DatePattern
from batchinfer.job.reader import ROOTS_VARIABLE

QUERIES = "queries.parquet"
LOOK_AT_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class ListToUse:
    """place: a file; if it stays there, absolute, and it may be a folder or a glob, and have a date."""

    place: Path
    stays: bool

    @classmethod
    def of(cls, path: str, *, stays: bool) -> Self:
        """Raises UsageError for a path that cannot be one."""
        fault = fault_of_path(Path(path))
        try:
            DatePattern.of(path)
        except ValueError as exc:
            fault = str(exc)
        if not path:
            raise UsageError("The path of the list is empty: name a file, or leave the option out for a small sample.")
        if stays and "$" in path:
            fault = (
                "has a $, which the job file would take for a variable: let the shell fill it in, or rename the file."
            )
        if fault:
            raise UsageError(f"{shortened(path)} {fault}")
        return cls(Path(os.path.normpath(Path(path).absolute())) if stays else Path(path), stays)

    @property
    def path(self) -> str:
        """As the job file has it."""
        if self.stays:
            return str(self.place)
        return f"queries{self.place.suffix.lower()}" if is_text_file(self.place) else QUERIES

    def sample(self) -> pa.Table:
        """Its first rows. Raises InputError."""
        return _rows(of_path(self.place, str(self.place), find_files, Path.cwd())[0].path if self.stays else self.place)

    def root(self) -> str | None:
        """The folder that it lies in, unless the environment allows that already."""
        place = real_path(self.place)
        folder = next(parent for parent in (place, *place.parents) if parent.is_dir())
        allowed = [Path(root).absolute() for root in os.environ.get(ROOTS_VARIABLE, "").split(os.pathsep) if root]
        return None if any(real_path(folder).is_relative_to(real_path(root)) for root in allowed) else str(folder)


def _rows(path: Path) -> pa.Table:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            with pq.ParquetFile(parquet_of(path, Path(scratch)) if is_text_file(path) else path) as file:
                table = pa.Table.from_batches(file.iter_batches(LOOK_AT_ROWS), file.schema_arrow).slice(0, LOOK_AT_ROWS)
        except (pa.ArrowInvalid, OSError) as exc:
            raise unreadable(path, exc) from exc
    columns = [pa.chunked_array(map(stored, column.chunks), stored_type(column.type)) for column in table.columns]
    return pa.table(columns, table.column_names)
