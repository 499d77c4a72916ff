"""Narrow numbers by their shortest form: the float32 0.1 is 0.1, and not 0.10000000149011612; the decimal 1.50 is 1.5."""

from __future__ import annotations

import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

Form = Literal["single", "decimal"]
"""How keys of a column are written otherwise than they were before shortest forms."""

TRAILING_ZEROS = r"^(-?[0-9]+)(?:\.0*|(\.[0-9]*[1-9])0*)$"
WITHOUT_ZEROS = r"\1\2"
TINY = 1e-4  # below it narrow numbers may have fewer digits than their type promises
Plain = Callable[[Any], Any]


def form_of(kind: pa.DataType) -> Form | None:
    """The form of a stored type."""
    return "single" if pa.types.is_float32(kind) else "decimal" if pa.types.is_decimal(kind) else None


def widened(column: pa.Array) -> pa.Array:
    """A column of narrow numbers as doubles, each with the shortest text that means it; others as they are."""
    if pa.types.is_float32(column.type):
        return column.cast(pa.string()).cast(pa.float64())
    if pa.types.is_float16(column.type):
        return pa.array(plain_values(column), pa.float64())
    return column


def decimal_texts(column: pa.Array) -> pa.Array:
    """A column of decimals as texts by their value, whatever its scale."""
    texts = column.cast(pa.string())
    if pc.any(pc.match_substring(texts, "E")).as_py():
        return pa.array([None if value is None else _decimal(value) for value in column.to_pylist()], pa.string())
    return pc.replace_substring_regex(texts, TRAILING_ZEROS, WITHOUT_ZEROS)


def plain_values(column: pa.Array) -> list[Any]:
    """The values as Python has them, narrow floats by their shortest form wherever they stand."""
    change = _change(column.type, decimals=False)
    return column.to_pylist() if change is None else [change(value) for value in column.to_pylist()]


def plainer(kind: pa.DataType) -> Plain:
    """A function for values of a nested type as Python has them: narrow numbers and decimals by their shortest form."""
    return _change(kind, decimals=True) or (lambda value: value)


def _change(kind: pa.DataType, *, decimals: bool) -> Plain | None:
    """None where nothing within the type is narrow."""
    if isinstance(kind, pa.BaseExtensionType):
        return None
    if pa.types.is_dictionary(kind):
        return _change(kind.value_type, decimals=decimals)
    if pa.types.is_float32(kind):
        return lambda value: None if value is None else _shortest(value, "f", 6, 9)
    if pa.types.is_float16(kind):
        return lambda value: None if value is None else _shortest(float(value), "e", 3, 5)
    if pa.types.is_decimal(kind):
        return (lambda value: None if value is None else _decimal(value)) if decimals else None
    return _within(kind, decimals=decimals) if pa.types.is_nested(kind) else None


def _within(kind: pa.DataType, *, decimals: bool) -> Plain | None:
    """The same for what a nested type holds."""
    if pa.types.is_struct(kind):
        fields = {field.name: _change(field.type, decimals=decimals) for field in kind}
        changes = {name: change for name, change in fields.items() if change is not None}
        return (
            (lambda value: value and value | {name: made(value[name]) for name, made in changes.items()})
            if changes
            else None
        )
    if pa.types.is_map(kind):
        parts = [_change(part, decimals=decimals) or (lambda part: part) for part in (kind.key_type, kind.item_type)]
        return lambda value: (
            value and [tuple(made(part) for made, part in zip(parts, pair, strict=True)) for pair in value]
        )
    item = _change(kind.value_type, decimals=decimals) if hasattr(kind, "value_type") else None
    return None if item is None else lambda value: value and [item(part) for part in value]


def _shortest(value: float, code: str, digits: int, most: int) -> float:
    """The double with the fewest digits that is this narrow number. code: as in struct."""
    for count in range(1 if abs(value) < TINY else digits, most + 1):
        short = float(f"{value:.{count}g}")
        try:
            if struct.unpack(code, struct.pack(code, short))[0] == value:
                return short
        except OverflowError:  # rounded up beyond the largest
            continue
    return value


def _decimal(value: Decimal) -> str:
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
