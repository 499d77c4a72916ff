"""Parquet files → checked columns, batch by batch. A row that cannot be used as a query comes out as a bad row.

Text is read as bytes and checked here: one row of invalid UTF-8 would otherwise abort the whole scan.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchinfer.core import keys
from batchinfer.core.columns import Column, Kind
from batchinfer.core.database import LIST_ROWS
from batchinfer.errors import InputError, did_you_mean
from batchinfer.inputs.convert import ARROW_TYPES, Faults, convert, json_value, kind_of, stored_type
from batchinfer.inputs.csv_file import title_hint
from batchinfer.inputs.list_file import ListFile
from batchinfer.inputs.shortest import Form, form_of
from batchinfer.job.spec import InputSpec

ROW = "\x1frow"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row of the list that cannot be asked.

    row: its number from 1, over all files in order.
    file: the name of its file.
    query: its key columns.
    reason: a short stable word for machines.
    detail: a sentence for people.
    """

    row: int
    file: str
    query: dict[str, Any]
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of the list.

    good: the columns ROW, those asked for, and helper columns for keys.
    lost: the same, of the bad rows.
    bad: why these rows are bad.
    """

    good: pa.Table
    lost: pa.Table
    bad: list[BadRow]


class UnfitList(InputError):
    """A list that does not have what it should have by the job file.

    at: the field that says so, if it is one of the section input.
    column: the column that it is about.
    """

    def __init__(self, message: str, *, at: tuple[str | int, ...] | None = None, column: str = "") -> None:
        super().__init__(message)
        self.at, self.column = at, column


class ListSource:
    """The query list of a job, opened: its files and the kinds of its columns."""

    def __init__(
        self,
        files: Sequence[Path | ListFile],
        spec: InputSpec,
        columns: Sequence[str],
        *,
        rows_at_once: int = LIST_ROWS,
    ) -> None:
        """Raises InputError.

        columns: those that the template uses; the key's and the filter's are added.
        rows_at_once: the most rows of a batch.
        """
        self.files = [file if isinstance(file, ListFile) else ListFile(file) for file in files]
        self._rows_at_once = rows_at_once
        self._spec = spec
        self._names = list(dict.fromkeys([*spec.key, *columns, *spec.where]))
        self._used = list(dict.fromkeys([*spec.key, *columns]))
        schemas = [file.schema() for file in self.files]
        for file, schema in zip(self.files, schemas, strict=True):
            _check_columns(self._names, schema, file, spec)
        lowered = Counter(name.lower() for name in self._names)
        if alike := [name for name in self._names if lowered[name.lower()] > 1]:
            raise InputError(f"The columns {' and '.join(alike)} differ only in case: rename one of them.")
        fields = {name: _telling(name, self.files, schemas) for name in self._names}
        self.kinds: dict[str, Kind] = {
            name: spec.types.get(name) or self._kind(field) for name, field in fields.items()
        }
        self._types = {  # integers too large for a signed 64-bit type stay unsigned, if the file that tells has them so
            name: pa.uint64()
            if kind == "integer" and pa.types.is_uint64(stored_type(fields[name].type))
            else ARROW_TYPES[kind]
            for name, kind in self.kinds.items()
        }
        self.forms: dict[str, Form] = {
            name: form
            for name in spec.key
            if self.kinds[name] in ("number", "string") and (form := form_of(stored_type(fields[name].type)))
        }
        self.zoned = frozenset(
            name for name, kind in self.kinds.items() if kind == "timestamp" and _has_zone(fields[name])
        )
        for place, name in enumerate(spec.key):
            if self.kinds[name] == "json":
                said = f"The key column {name} is {fields[name].type}: a lookup key must be a plain value."
                raise UnfitList(said, at=("input", "key", place))
        self._allowed = {name: self._allowed_values(name, wanted) for name, wanted in spec.where.items()}

    @property
    def key(self) -> list[Column]:
        """The columns of the lookup key, in the job's order."""
        return [Column(name, self.kinds[name], zoned=name in self.zoned) for name in self._spec.key]

    @property
    def normalize(self) -> list[str]:
        """The steps that make key strings comparable."""
        return list(self._spec.normalize)

    def template_values(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row as a template sees it: nested columns as lists and mappings again, times with their zone."""
        return {name: self._template_value(name, row[name]) for name in self.kinds if name in row}

    def _template_value(self, name: str, value: Any) -> Any:
        if self.kinds[name] == "json" and value is not None:
            return json.loads(value)
        if name in self.zoned and value is not None and value.tzinfo is None:
            return value.replace(tzinfo=UTC)
        return value

    def batches(self) -> Iterator[Batch]:
        """All rows. Raises InputError when a file cannot be read, or when there are no rows at all."""
        number = 0
        for file in self.files:
            for raw in file.batches(self._names, self._rows_at_once):
                yield self.check(raw, number, file.original)
                number += raw.num_rows
        if number == 0:
            raise InputError(f"{self.files[0]} has no rows: an empty list would remove everything that is served.")

    def _kind(self, field: pa.Field) -> Kind:
        """The kind that the files tell; nothing but nulls are no key, but else do no harm. Raises InputError."""
        return "string" if pa.types.is_null(field.type) and field.name not in self._spec.key else kind_of(field)

    def check(self, raw: pa.RecordBatch, start: int, path: Path) -> Batch:
        """The rows of a file, converted and sorted into good and bad; `start` rows came before them."""
        columns, faults = {}, Faults(raw.num_rows)
        for name in self._names:
            columns[name] = convert(raw.column(name), self.kinds[name], self._types[name], name, faults)
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
                    {name: json_value(columns[name][row]) for name in self._spec.key},
                    *faults.found[row],
                )
                for row in bad
            ],
        )

    def _allowed_values(self, name: str, wanted: Any) -> pa.Array:
        """What the filter lets pass. Raises InputError for values that the column cannot have."""
        try:
            return pa.array(wanted if isinstance(wanted, list) else [wanted]).cast(self._types[name])
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as exc:
            said = f"The column {name} holds {self.kinds[name]} values, and the filter wants {wanted!r}: correct it."
            raise UnfitList(said, at=("input", "where", name)) from exc

    def _wanted(self, columns: Mapping[str, pa.Array], faults: Faults) -> pa.Array | None:
        """A mask of the rows that the job's filter keeps; a row whose filter column is faulty is kept, to be reported."""
        if not self._spec.where:
            return None
        keep = pa.array([True] * len(next(iter(columns.values()))))
        for name, allowed in self._allowed.items():
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
        """Columns from which keys are made where SQL cannot make them from the column itself."""
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


def _telling(name: str, files: Sequence[ListFile], schemas: Sequence[pa.Schema]) -> pa.Field:
    """The column as the first file has it that says what its values are: one of nulls, or of no rows, hardly does."""
    fields = [schema.field(name) for schema in schemas]
    told = [number for number, field in enumerate(fields) if not pa.types.is_null(field.type)]
    if len({str(fields[number].type) for number in told}) > 1:
        told = [number for number in told if files[number].num_rows] or told
    return fields[told[0]] if told else fields[0]


def _has_zone(field: pa.Field) -> bool:
    kind = stored_type(field.type)
    return bool(pa.types.is_timestamp(kind) and kind.tz)


def _check_columns(names: Sequence[str], schema: pa.Schema, file: ListFile, spec: InputSpec) -> None:
    counts = Counter(schema.names)
    for name in names:
        if not name or "\0" in name:
            raise InputError(f"The column {name!r} cannot be used: give it a name in the list, without U+0000.")
        if name not in counts:
            there = [other for other in schema.names if not other.startswith("\x1f")]  # those are ours
            hint = (did_you_mean(name, there) or f"it has {', '.join(there)}.") + title_hint(file.name, names, there)
            raise UnfitList(f"{file.name} has no column {name}: {hint}", at=_naming(name, spec), column=name)
        if counts[name] > 1:
            raise InputError(f"{file.name} has the column {name} more than once: rename one of them.")


def _naming(column: str, spec: InputSpec) -> tuple[str | int, ...] | None:
    """The field of the section input that names a column; None if none does."""
    if column in spec.key:
        return ("input", "key", spec.key.index(column))
    return ("input", "where", column) if column in spec.where else None


def _filtered(table: pa.Table, keep: pa.Array | None, good: pa.Array | None) -> pa.Table:
    masks = [mask for mask in (keep, good) if mask is not None]
    for mask in masks[1:]:
        masks[0] = pc.and_(masks[0], mask)
    return table.filter(masks[0]) if masks else table
