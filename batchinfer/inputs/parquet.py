"""Parquet files → checked columns, batch by batch. What cannot be used as a query comes out as a bad row.

Text is read as bytes and checked here: one row of invalid UTF-8 would otherwise abort the whole scan.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchinfer.core import keys
from batchinfer.core.columns import Column, Kind
from batchinfer.errors import InputError
from batchinfer.job.reader import Job
from batchinfer.job.spec import InputSpec

BATCH_ROWS = 65_536
ROW = "\x1frow"
ARROW_TYPES: dict[Kind, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "json": pa.string(),
}


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row of the list that cannot be asked. row: its number from 1, over all files in order."""

    row: int
    file: str
    query: dict[str, Any]
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Up to BATCH_ROWS rows. good: columns ROW, the columns asked for, and helper columns for keys. lost: the same of bad rows."""

    good: pa.Table
    lost: pa.Table
    bad: list[BadRow]


class Source:
    """The query list of a job, opened: its files and the kinds of its columns."""

    def __init__(self, files: Sequence[Path], spec: InputSpec, columns: Sequence[str]) -> None:
        """columns: those that the template uses; the key's and the filter's are added. Raises InputError."""
        self.files = list(files)
        self._spec = spec
        self._names = list(dict.fromkeys([*spec.key, *columns, *spec.where]))
        self._used = list(dict.fromkeys([*spec.key, *columns]))
        schema = _schema(self.files[0])
        _check_columns(self._names, schema, self.files[0])
        if alike := [name for name in self._names if sum(name.lower() == other.lower() for other in self._names) > 1]:
            raise InputError(f"The columns {' and '.join(alike)} differ only in case: rename one of them.")
        self.kinds: dict[str, Kind] = {
            name: spec.types.get(name) or kind_of(schema.field(name)) for name in self._names
        }
        self._types = {  # integers too large for 64 bits with a sign stay without one, if the first file has them so
            name: pa.uint64()
            if kind == "integer" and pa.types.is_uint64(schema.field(name).type)
            else ARROW_TYPES[kind]
            for name, kind in self.kinds.items()
        }
        for name in spec.key:
            if self.kinds[name] == "json":
                raise InputError(
                    f"The key column {name} is {schema.field(name).type}: a lookup key must be a plain value."
                )

    @property
    def key(self) -> list[Column]:
        """The columns of the lookup key, in the job's order."""
        return [Column(name, self.kinds[name]) for name in self._spec.key]

    @property
    def normalize(self) -> list[str]:
        """The steps that make key strings comparable."""
        return list(self._spec.normalize)

    def batches(self) -> Iterator[Batch]:
        """All rows. Raises InputError when a file cannot be read, or when there are no rows at all."""
        number = 0
        for path in self.files:
            schema = _schema(path)
            _check_columns(self._names, schema, path)
            try:
                with pq.ParquetFile(path) as file:
                    for raw in file.iter_batches(BATCH_ROWS, columns=self._names):
                        yield self.check(raw, number, path)
                        number += raw.num_rows
            except (pa.ArrowInvalid, OSError) as exc:
                raise InputError(f"{path} breaks off or is damaged: {exc}") from exc
        if number == 0:
            raise InputError(f"{self.files[0]} has no rows: an empty list would replace all that is served by nothing.")

    def check(self, raw: pa.RecordBatch, start: int, path: Path) -> Batch:
        """Rows as they stand in a file, converted and told apart; `start` rows came before them."""
        columns, faults = {}, Faults(raw.num_rows)
        for name in self._names:
            columns[name] = _convert(raw.column(name), self.kinds[name], self._types[name], name, faults)
        keep = self._wanted(columns, faults)
        for name in self._used:
            self._check_presence(name, columns[name], faults)
        bad = [row for row in sorted(faults.found) if keep is None or keep[row].as_py()]
        mask = pa.array([row not in faults.found for row in range(raw.num_rows)]) if faults.found else None
        table = pa.table(
            {ROW: pa.array(range(start + 1, start + 1 + raw.num_rows), pa.int64()), **columns, **self.helpers(columns)}
        )
        return Batch(
            _filtered(table, keep, mask),
            table.take(pa.array(bad, pa.int64())),
            [
                BadRow(
                    start + 1 + row,
                    path.name,
                    {name: _plain(columns[name][row]) for name in self._spec.key},
                    *faults.found[row],
                )
                for row in bad
            ],
        )

    def _wanted(self, columns: Mapping[str, pa.Array], faults: Faults) -> pa.Array | None:
        """Which rows the job's filter keeps; a row whose filter column is faulty is kept, to be reported."""
        if not self._spec.where:
            return None
        keep = pa.array([True] * len(next(iter(columns.values()))))
        for name, wanted in self._spec.where.items():
            values = wanted if isinstance(wanted, list) else [wanted]
            try:
                allowed = pa.array(values).cast(columns[name].type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as exc:
                raise InputError(
                    f"input.where.{name} is {wanted!r}, but the column holds {self.kinds[name]} values."
                ) from exc
            keep = pc.and_(keep, pc.is_in(columns[name], value_set=allowed))
        if faults.found:
            keep = pc.or_(keep, pa.array([row in faults.found for row in range(len(keep))]))
        return keep

    def _check_presence(self, name: str, column: pa.Array, faults: Faults) -> None:
        is_key = name in self._spec.key
        if not is_key and name in self._spec.optional:
            return
        what = "key" if is_key else "value"
        faults.add_where(pc.is_null(column, nan_is_null=True), f"null_{what}", f"The column {name} is null.")
        if self.kinds[name] == "string":
            blank = pc.equal(pc.utf8_trim_whitespace(pc.fill_null(column, "x")), "")
            faults.add_where(blank, f"empty_{what}", f"The column {name} is an empty text.")

    def helpers(self, columns: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """What keys are made from where SQL cannot make it from the column itself."""
        helpers = {}
        for name, column in columns.items():
            if self.kinds[name] == "number":
                helpers[keys.bits_column(name)] = pc.add(column, 0.0).view(pa.int64())
            if name in self._spec.key and self.kinds[name] == "string" and self._spec.normalize:
                texts = [
                    None if text is None else keys.normalized(text, self._spec.normalize) for text in column.to_pylist()
                ]
                helpers[keys.normal_column(name)] = pa.array(texts, pa.string())
        return helpers


class Faults:
    """Which rows of a batch are bad, and why; the first fault found of a row stands."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.found: dict[int, tuple[str, str]] = {}

    def add(self, row: int, reason: str, detail: str) -> None:
        self.found.setdefault(row, (reason, detail))

    def add_where(self, mask: pa.Array, reason: str, detail: str) -> None:
        if mask.true_count:
            for row in pc.indices_nonzero(mask).to_pylist():
                self.add(row, reason, detail)


def job_files(job: Job) -> list[Path]:
    """The files of a job's own list. Raises InputError if there is none, SpecError if one lies where it may not."""
    field = "input.path"
    files = find_files(job.inside(field, job.spec.input.path or ""))
    return [job.inside(field, str(file)) for file in files]  # a folder or glob may hold links that lead out


def find_files(path: Path, advice: str = "check input.path, or name the list with --input") -> list[Path]:
    """The Parquet files that a path, a folder or a glob names, sorted. Raises InputError if there is none."""
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(file for file in path.rglob("*.parquet") if file.is_file())
        problem = f"The folder {path} holds no .parquet file."
    else:
        anchor = Path(path.anchor or ".")
        found = sorted(file for file in anchor.glob(str(path.relative_to(anchor))) if file.is_file())
        problem = f"There is no file {path}: {advice}."
    if not found:
        raise InputError(problem)
    return found


def kind_of(field: pa.Field) -> Kind:
    """The kind of an Arrow column. Raises InputError for types that no prompt or key can hold."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    tests: list[tuple[Kind, Any]] = [
        ("string", pa.types.is_string), ("string", pa.types.is_large_string), ("string", pa.types.is_string_view),
        ("string", pa.types.is_binary), ("string", pa.types.is_large_binary), ("string", pa.types.is_decimal),
        ("integer", pa.types.is_integer), ("number", pa.types.is_floating), ("boolean", pa.types.is_boolean),
        ("date", pa.types.is_date), ("timestamp", pa.types.is_timestamp), ("json", pa.types.is_nested),
    ]  # fmt: skip
    for name, test in tests:
        if test(kind):
            return name
    raise InputError(f"The column {field.name} is {field.type}, which cannot be used: convert it to text or a number.")


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as exc:
        raise InputError(f"{path} is not a Parquet file, or cannot be read: {exc}") from exc


def _check_columns(names: Sequence[str], schema: pa.Schema, path: Path) -> None:
    for name in names:
        if name not in schema.names:
            near = difflib.get_close_matches(name, schema.names, n=1)
            there = ", ".join(other for other in schema.names if not other.startswith("\x1f"))  # those are ours
            hint = f"did you mean {near[0]}?" if near else f"it has {there}."
            raise InputError(f"{path.name} has no column {name}: {hint}")
        if schema.names.count(name) > 1:
            raise InputError(f"{path.name} has the column {name} more than once: rename one of them.")


def _convert(column: pa.Array, kind: Kind, target: pa.DataType, name: str, faults: Faults) -> pa.Array:
    """The column as its kind's Arrow type; values that cannot be are null, and a fault of their row."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if kind == "json":
        return _as_json(column, name, faults)
    if _is_text(column.type):
        column = _decode(column.cast(pa.large_binary()), name, faults)
    try:
        column = column.cast(target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        column = _cast_each(column, target, kind, name, faults)
    if kind in ("date", "timestamp"):  # Python has none beyond the years 1 to 9999
        years = pc.year(column)
        beyond = pc.or_(pc.less(years, 1), pc.greater(years, 9999))
        faults.add_where(beyond, "wrong_type", f"The column {name} holds a {kind} outside the years 1 to 9999.")
        column = pc.if_else(beyond, pa.scalar(None, column.type), column)
    return column


def _as_json(column: pa.Array, name: str, faults: Faults) -> pa.Array:
    texts: list[str | None] = []
    for row, value in enumerate(column):
        try:
            plain = value.as_py()
        except UnicodeDecodeError:
            plain = None
            faults.add(row, "not_utf8", f"The column {name} holds text that is not valid UTF-8.")
        except (ValueError, OverflowError):
            plain = None
            faults.add(row, "wrong_type", f"The column {name} holds a time finer than a microsecond, or too far away.")
        texts.append(None if plain is None else keys.canonical_json(plain))
    return pa.array(texts, pa.string())


def _is_text(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
        )
    )


def _decode(column: pa.Array, name: str, faults: Faults) -> pa.Array:
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        pass
    texts: list[str | None] = []
    for row, data in enumerate(column.to_pylist()):
        try:
            texts.append(None if data is None else data.decode())
        except UnicodeDecodeError as exc:
            texts.append(data.decode(errors="replace"))
            faults.add(row, "not_utf8", f"The column {name} is not valid UTF-8 at byte {exc.start}.")
    return pa.array(texts, pa.string())


def _cast_each(column: pa.Array, target: pa.DataType, kind: Kind, name: str, faults: Faults) -> pa.Array:
    values = []
    for row in range(len(column)):
        try:
            values.append(column.slice(row, 1).cast(target)[0].as_py())
        except (ValueError, OverflowError, NotImplementedError):  # Arrow's errors are among them
            values.append(None)
            faults.add(
                row,
                "wrong_type",
                f"The column {name} should hold values of the kind {kind}, but here it is {_shown(column[row])}.",
            )
    return pa.array(values, target)


def _shown(value: pa.Scalar) -> str:
    try:
        return repr(value.as_py())
    except (ValueError, OverflowError):  # a time that Python has none for
        return str(value.cast(pa.string()).as_py())


def _filtered(table: pa.Table, keep: pa.Array | None, good: pa.Array | None) -> pa.Table:
    masks = [mask for mask in (keep, good) if mask is not None]
    for mask in masks[1:]:
        masks[0] = pc.and_(masks[0], mask)
    return table.filter(masks[0]) if masks else table


def _plain(value: pa.Scalar) -> Any:
    plain = value.as_py()
    return plain if plain is None or isinstance(plain, str | int | float | bool) else str(plain)


def template_values(row: Mapping[str, Any], kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """A row as a template sees it: nested columns as lists and mappings again."""
    return {
        name: json.loads(row[name]) if kind == "json" and row[name] is not None else row[name]
        for name, kind in kinds.items()
        if name in row
    }
