"""Rows of a Parquet file in batches that are bounded in bytes, however long its texts are and however it was written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchinfer.core.files import check_plain
from batchinfer.core.memory import batch_bytes

BUFFER = 1 << 20  # bytes of a file that are read at once
LONG_ROW = 1024  # bytes
FEW, MANY = 64, 8192  # rows that are decoded at once where a row group is large: of long rows, and of others
LARGE = 8  # such a part of a batch's bytes may a row group have to be no danger
TEXT = "BYTE_ARRAY"


def row_batches(path: Path, names: Sequence[str], rows_at_once: int) -> Iterator[pa.RecordBatch]:
    """These columns of all rows, at most `rows_at_once` and about `batch_bytes` at a time. Raises what Arrow raises."""
    check_plain(path)
    with pq.ParquetFile(path, buffer_size=BUFFER) as file:
        decoded = (
            batch
            for group in range(file.num_row_groups)
            for batch in file.iter_batches(
                min(_rows_at_once(path, file, group, names), rows_at_once), row_groups=[group], columns=list(names)
            )
        )
        yield from gathered(decoded, rows_at_once)


def gathered(batches: Iterable[pa.RecordBatch], rows_at_once: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of about `batch_bytes`: larger ones are cut, and smaller ones put together."""
    most = batch_bytes()
    held, rows, size = list[pa.RecordBatch](), 0, 0
    for batch in batches:
        for part in cut(batch, most):
            if held and (rows + part.num_rows > rows_at_once or size + part.nbytes > most):
                yield _joined(held)
                held, rows, size = [], 0, 0
            held.append(part)
            rows, size = rows + part.num_rows, size + part.nbytes
    if held:
        yield _joined(held)


def cut(batch: pa.RecordBatch, most: int) -> Iterator[pa.RecordBatch]:
    """The rows in parts of at most so many bytes each, or of one row."""
    if batch.nbytes <= most or batch.num_rows <= 1:
        yield batch
        return
    half = batch.num_rows // 2
    yield from cut(batch.slice(0, half), most)
    yield from cut(batch.slice(half), most)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def _rows_at_once(path: Path, file: pq.ParquetFile, group: int, names: Sequence[str]) -> int:
    """How many rows of a row group can be decoded at once."""
    facts = file.metadata.row_group(group)
    columns = [facts.column(number) for number in range(facts.num_columns)]
    own = frozenset(names)
    wanted = [column for column in columns if _column_of(column.path_in_schema, own) is not None]
    size, rows = sum(column.total_uncompressed_size for column in wanted), max(facts.num_rows, 1)
    most = batch_bytes()
    if size > LARGE * most:
        return int(max(min(most * rows // size, FEW if size // rows > LONG_ROW else MANY), 1))
    coded = [column.path_in_schema for column in wanted if column.has_dictionary_page and column.physical_type == TEXT]
    if size * rows <= LARGE * most or not coded:
        return int(rows)
    # A text that is written once may stand in each row.
    row = size // rows + sum(_longest(path, file, group, name) for name in coded if name in own)
    return int(max(most // max(row, 1), 1))


def _column_of(path: str, names: Collection[str]) -> str | None:
    """The column that a path in the schema is of; None if it is none of these."""
    ends = [*(place for place, sign in enumerate(path) if sign == "."), len(path)]
    return next((path[:end] for end in ends if path[:end] in names), None)


def _longest(path: Path, file: pq.ParquetFile, group: int, name: str) -> int:
    """Bytes of the longest text in a column's dictionary."""
    with pq.ParquetFile(path, metadata=file.metadata, read_dictionary=[name]) as coded:
        first = next(coded.iter_batches(1, row_groups=[group], columns=[name]), None)
    if first is None or not pa.types.is_dictionary(first.column(0).type):
        return 0
    return int(pc.max(pc.binary_length(first.column(0).dictionary)).as_py() or 0)
