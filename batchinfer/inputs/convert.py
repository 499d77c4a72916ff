"""Arrow columns to the kinds of keys; a value that cannot be converted is a fault of its row."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchinfer.core import keys
from batchinfer.core.clock import shown
from batchinfer.core.columns import A_VALUE, Kind
from batchinfer.core.long_texts import MOST_TEXT, oversized
from batchinfer.errors import InputError, shortened
from batchinfer.inputs.shortest import decimal_texts, plainer, widened

ARROW_TYPES: dict[Kind, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "json": pa.string(),
}


class Faults:
    """The bad rows of a batch, with reasons; of a row's faults the first one counts."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.found: dict[int, tuple[str, str]] = {}

    def add(self, row: int, reason: str, detail: str) -> None:
        self.found.setdefault(row, (reason, detail))

    def add_where(self, mask: pa.Array, reason: str, detail: str) -> None:
        if mask.true_count:
            for row in pc.indices_nonzero(mask).to_pylist():
                self.add(row, reason, detail)

    def add_too_long(self, column: pa.Array, name: str) -> None:
        """The rows whose text is beyond what can be used."""
        sizes = pc.binary_length(column)
        if (pc.max(sizes).as_py() or 0) > MOST_TEXT:
            for row in pc.indices_nonzero(pc.fill_null(pc.greater(sizes, MOST_TEXT), False)).to_pylist():  # noqa: FBT003
                self.add(row, "too_long", f"The column {name} holds {oversized(sizes[row].as_py())}.")


def kind_of(field: pa.Field) -> Kind:
    """The kind of an Arrow column. Raises InputError for types that no prompt or key can hold."""
    kind = stored_type(field.type)
    tests: list[tuple[Kind, Any]] = [
        ("string", pa.types.is_string), ("string", pa.types.is_large_string), ("string", pa.types.is_string_view),
        ("string", pa.types.is_binary), ("string", pa.types.is_large_binary), ("string", pa.types.is_decimal),
        ("integer", pa.types.is_integer), ("number", pa.types.is_floating), ("boolean", pa.types.is_boolean),
        ("date", pa.types.is_date), ("timestamp", pa.types.is_timestamp), ("json", pa.types.is_nested),
    ]  # fmt: skip
    for name, test in tests:
        if test(kind):
            return name
    raise InputError(
        f"The column {field.name} is {field.type}, which cannot be used: convert it to text or a number, or say what to "
        f"read it as in input.types of the job file, such as {field.name}: string."
    )


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values behind a categorical or an extension type, such as text behind arrow.uuid and arrow.json."""
    if pa.types.is_dictionary(kind):
        return stored_type(kind.value_type)
    if isinstance(kind, pa.UuidType):
        return pa.string()
    if isinstance(kind, pa.Bool8Type):
        return pa.bool_()
    return stored_type(kind.storage_type) if isinstance(kind, pa.BaseExtensionType) else kind


def stored(column: pa.Array) -> pa.Array:
    """A column as its stored type."""
    if pa.types.is_dictionary(column.type):
        return stored(column.dictionary_decode())
    if isinstance(column.type, pa.UuidType):
        return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())
    if isinstance(column.type, pa.Bool8Type):
        return column.cast(pa.bool_())
    return stored(column.storage) if isinstance(column.type, pa.BaseExtensionType) else column


def convert(column: pa.Array, kind: Kind, target: pa.DataType, name: str, faults: Faults) -> pa.Array:
    """The column as its kind's Arrow type; values that cannot be are null, and a fault of their row."""
    column = stored(column)
    if kind == "json":
        return _as_json(column, name, faults)
    if kind == "number":
        column = widened(column)
    elif kind == "string" and pa.types.is_decimal(column.type):
        column = decimal_texts(column)
    if _is_text(column.type):
        column = _decode(column.cast(pa.large_binary()), name, faults)
    try:
        column = column.cast(target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        column = _cast_each(column, target, kind, name, faults)
    if kind == "string":
        faults.add_too_long(column, name)
    if kind in ("date", "timestamp"):  # Python has none beyond the years 1 to 9999
        years = pc.year(column)
        beyond = pc.or_(pc.less(years, 1), pc.greater(years, 9999))
        faults.add_where(beyond, "wrong_type", f"The column {name} holds a {kind} outside the years 1 to 9999.")
        column = pc.if_else(beyond, pa.scalar(None, column.type), column)
    return column


def _as_json(column: pa.Array, name: str, faults: Faults) -> pa.Array:
    texts: list[str | None] = []
    shortest = plainer(column.type)
    for row, value in enumerate(column):
        try:
            plain = shortest(value.as_py())
        except UnicodeDecodeError:
            plain = None
            faults.add(row, "not_utf8", f"The column {name} holds text that is not valid UTF-8.")
        except (ValueError, OverflowError):
            plain = None
            faults.add(row, "wrong_type", f"The column {name} holds a time finer than a microsecond, or out of range.")
        texts.append(None if plain is None else keys.canonical_json(plain))
    column = pa.array(texts, pa.string())
    faults.add_too_long(column, name)
    return column


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
            values.append(_cast_one(column.slice(row, 1), target)[0].as_py())
        except (ValueError, OverflowError, NotImplementedError):  # Arrow's errors are among them
            values.append(None)
            faults.add(row, "wrong_type", f"The column {name}{_misfit(column[row], kind)}.")
    return pa.array(values, target)


def _misfit(value: pa.Scalar, kind: Kind) -> str:
    """Why a value cannot be of a kind, as the rest of a sentence that begins with its column."""
    if kind == "timestamp" and pa.types.is_timestamp(value.type) and value.type.unit == "ns":
        return f" holds {value.cast(pa.string()).as_py()}, a time finer than a microsecond: round it"
    return f": expected {A_VALUE[kind]}, got {_described(value)}"


def _cast_one(value: pa.Array, target: pa.DataType) -> pa.Array:
    """A value of the type; a text of a time with a zone is the moment that it means, as look-ups have it."""
    try:
        return value.cast(target)
    except pa.ArrowInvalid:
        if not pa.types.is_timestamp(target):
            raise
        return value.cast(pa.timestamp(target.unit, "UTC")).cast(target)


def _described(value: pa.Scalar) -> str:
    try:
        return shortened(repr(value.as_py()))
    except (ValueError, OverflowError):  # a time that Python has none for
        return str(value.cast(pa.string()).as_py())


def json_value(value: pa.Scalar) -> Any:
    """A value as JSON can hold it; of a text beyond what can be used, its beginning."""
    plain = value.as_py()
    if isinstance(plain, date):  # a datetime is one too
        return shown(plain)
    if isinstance(plain, str) and len(plain) > MOST_TEXT // 4 and len(plain.encode()) > MOST_TEXT:
        return shortened(plain)
    return plain if plain is None or isinstance(plain, str | int | float | bool) else str(plain)
