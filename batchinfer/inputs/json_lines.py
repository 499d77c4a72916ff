"""JSON lines → Parquet in the scratch folder: an object for each row, whose values keep the kinds that JSON has."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.core.database import TEXT_ROWS
from batchinfer.core.files import os_errors
from batchinfer.core.memory import batch_bytes
from batchinfer.errors import InputError, shortened
from batchinfer.inputs.list_file import MOST_LINE, readable

DEEPEST = 32  # levels of lists and objects within each other, of which Parquet can read that many again
MOST_NAMES = 1_000  # of all objects together, inner ones too: each is a column, which has a value or null in each row
EXACT = 1 << 53  # up to which a number with a point holds each integer
LEAST, MOST = -(1 << 63), (1 << 63) - 1  # integers that a column can hold


@dataclass(frozen=True, slots=True)
class _Lines:
    """Some rows.

    numbers: of the line of each.
    rows: the object of each.
    """

    numbers: list[int]
    rows: list[dict[str, Any]]


def lines_as_parquet(path: Path, target: Path) -> None:
    """Writes a Parquet file with what a file of JSON lines holds. Raises InputError, with the line, or StoreError.

    A name that an object lacks is null there. The file is read twice: what a column is all its rows tell.
    """
    schema = pa.schema([])
    for lines in readable(path, _batches(path)):
        schema = _unified(path, schema, lines)
    if not schema.names:
        raise InputError(f"{path} is empty: write an object a line.")
    with os_errors(target), pq.ParquetWriter(target, schema) as writer:
        for lines in readable(path, _batches(path)):
            writer.write_batch(pa.record_batch([_column(path, field, lines) for field in schema], schema=schema))


def _column(path: Path, field: pa.Field, lines: _Lines) -> pa.Array:
    """Raises InputError for what is no text, and for integers that lose digits as what all rows together are."""
    values = [row.get(field.name) for row in lines.rows]
    try:
        return pa.array(values, field.type)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as exc:
        raise _two_kinds(path, field, lines, values) from exc


def _unified(path: Path, schema: pa.Schema, lines: _Lines) -> pa.Schema:
    """The columns with those of further rows. Raises InputError for a column of two kinds."""
    names = dict.fromkeys(name for row in lines.rows for name in row)
    if len({*schema.names, *names}) > MOST_NAMES:
        raise _too_many_names(path, lines)
    fields = {field.name: field for field in schema}
    for name in names:
        values = [row.get(name) for row in lines.rows]
        known = fields[name] if name in fields else _new_column(path, lines, name)
        try:
            # without an array, which would have a column for each inner name
            field = _wider(known, pa.infer_type(values))
            fault = _fault_of(field.type)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError) as exc:
            raise _two_kinds(path, known, lines, values) from exc
        if fault:
            raise InputError(f"{path}: the column {name} {fault}.")
        fields[name] = field
    if sum(_names_in(field.type) + 1 for field in fields.values()) > MOST_NAMES:
        raise _too_many_names(path, lines)
    return pa.schema(fields.values())


def _too_many_names(path: Path, lines: _Lines) -> InputError:
    return InputError(
        f"{path}: its objects have more than {MOST_NAMES:,} names, those of objects in them too, up to line {lines.numbers[-1]}: "
        "leave out what is not needed, or write objects whose names are values as lists."
    )


def _names_in(kind: pa.DataType) -> int:
    """How many names the objects in a column's values have."""
    inner = [kind.field(number).type for number in range(kind.num_fields)] if pa.types.is_nested(kind) else []
    return (len(inner) if pa.types.is_struct(kind) else 0) + sum(map(_names_in, inner))


def _new_column(path: Path, lines: _Lines, name: str) -> pa.Field:
    """Raises InputError for a name that is no text."""
    try:
        return pa.field(name, pa.null())
    except UnicodeEncodeError as exc:
        number = next(number for number, row in zip(lines.numbers, lines.rows, strict=True) if name in row)
        raise InputError(
            f"{path}, line {number}: a name holds half of a character (\\ud800 to \\udfff): correct it."
        ) from exc


def _wider(known: pa.Field, found: pa.DataType) -> pa.Field:
    other = pa.field(known.name, found)
    return pa.unify_schemas([pa.schema([known]), pa.schema([other])], promote_options="permissive").field(0)


def _two_kinds(path: Path, known: pa.Field, lines: _Lines, values: list[Any]) -> InputError:
    """What to say of the first value that does not go with those before it."""
    field = known
    for number, value in zip(lines.numbers, values, strict=True):
        try:
            own = pa.array([value]).type
        except pa.ArrowException:
            said = (
                f"{known.name} holds {shortened(json.dumps(value, ensure_ascii=False))}, with values of several kinds"
            )
            return InputError(f"{path}, line {number}: {said}: a column has values of one kind.")
        except UnicodeEncodeError:
            return InputError(
                f"{path}, line {number}: {known.name} holds half of a character (\\ud800 to \\udfff): remove it."
            )
        try:
            field = _wider(field, own)
        except (pa.ArrowException, OverflowError):
            said = f"{known.name} holds {shortened(json.dumps(value, ensure_ascii=False))}, and what is above it there is {field.type}"
            return InputError(f"{path}, line {number}: {said}: a column has values of one kind.")
    large = (
        number for number, value in zip(lines.numbers, values, strict=True) if type(value) is int and abs(value) > EXACT
    )
    place = "".join(f", line {number}" for number in [next(large, None)] if number)
    return InputError(
        f"{path}{place}: {known.name} has integers beyond 2^53 beside numbers with a point, which would lose digits: write texts."
    )


def _fault_of(kind: pa.DataType, depth: int = 0) -> str | None:
    """Why Parquet cannot hold it, as the rest of a sentence."""
    if depth > DEEPEST:
        return f"is nested more than {DEEPEST} levels deep"
    inner = [kind.field(number).type for number in range(kind.num_fields)] if pa.types.is_nested(kind) else []
    if pa.types.is_struct(kind) and not inner:
        return "holds objects without a name in them ({}) alone: leave it out, or write null"
    return next(filter(None, (_fault_of(each, depth + 1) for each in inner)), None)


def _batches(path: Path) -> Iterator[_Lines]:
    """The rows, some at a time: few where they are long. Empty lines are left out."""
    batch, size, most = _Lines([], []), 0, batch_bytes()
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MOST_LINE):
            number += 1
            if len(line) == MOST_LINE:
                raise InputError(f"{path}, line {number} has {MOST_LINE >> 20} MB or more: write an object a line.")
            if not (text := line.strip(b"\xef\xbb\xbf \t\r\n" if number == 1 else None)):
                continue
            batch.numbers.append(number)
            batch.rows.append(_object(path, number, text))
            size += len(text)
            if len(batch.rows) == TEXT_ROWS or size > most:
                yield batch
                batch, size = _Lines([], []), 0
    if batch.rows:
        yield batch


def _object(path: Path, number: int, text: bytes) -> dict[str, Any]:
    try:
        row = json.loads(
            text.decode(), parse_int=_integer, parse_float=_number, parse_constant=_number, object_pairs_hook=_named
        )
    except UnicodeDecodeError as exc:
        raise InputError(f"{path}, line {number} is not UTF-8: write JSON in UTF-8.") from exc
    except RecursionError as exc:
        raise InputError(f"{path}, line {number} is nested too deeply.") from exc
    except json.JSONDecodeError as exc:
        raise InputError(
            f"{path}, line {number} is not JSON ({exc.msg}, column {exc.colno}): write an object a line."
        ) from exc
    except ValueError as exc:
        raise InputError(f"{path}, line {number}: {exc}.") from exc
    if not isinstance(row, dict):
        raise InputError(
            f"{path}, line {number} is {_KINDS.get(type(row), 'a value')} and not an object: write an object a line."
        )
    return row


_KINDS = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "a truth value", type(None): "null"}


def _integer(text: str) -> int:
    if len(text) > 20 or not LEAST <= (value := int(text)) <= MOST:  # noqa: PLR2004 - digits of the most and a sign
        raise ValueError(f"the integer {shortened(text)} is beyond 63 bits and a sign: write it as a text")
    return value


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shortened(text)} is no number: write null, or leave it out")
    return value


def _named(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{shortened(twice)} is there more than once")
    return row
