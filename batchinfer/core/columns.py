"""A column of a key: its name, the kind of its values, and values of that kind out of text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal

from batchinfer.core.clock import shown
from batchinfer.errors import UsageError, shortened

Kind = Literal["string", "integer", "number", "boolean", "date", "timestamp", "json"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is part of a key.

    name: as in the list.
    kind: of its values.
    zoned: whether its times have a zone in the list. They are moments in UTC everywhere, and are written with a Z then;
        keys are the same either way.
    """

    name: str
    kind: Kind
    zoned: bool = field(default=False, compare=False)


def typed(text: str, column: Column) -> Any:
    """A value of the column's kind from its text, as in COLUMN=VALUE. Raises UsageError."""
    try:
        if column.kind == "integer":
            return int(text)
        if column.kind == "number":
            return float(text)
        if column.kind == "boolean":
            return {"true": True, "false": False}[text.lower()]
        if column.kind == "date":
            return date.fromisoformat(text)
        if column.kind == "timestamp":
            return datetime.fromisoformat(text)
        text.encode()  # an argument of the command line may not be UTF-8
        return json.loads(text) if column.kind == "json" else text
    except (ValueError, KeyError) as exc:
        raise no_value(text, column) from exc


def query_text(query: Mapping[str, Any] | None) -> str:
    """A lookup key as it is written on the command line."""
    return ", ".join(query_words(query or {}))


def query_words(query: Mapping[str, Any]) -> list[str]:
    """The same as arguments of a command, not quoted for a shell."""
    return [f"{name}={_value_text(value)}" for name, value in query.items()]


def _value_text(value: Any) -> str:
    if isinstance(value, date):
        return shown(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


A_VALUE: Mapping[Kind, str] = {
    "string": "a string", "integer": "an integer", "number": "a number", "boolean": "a boolean", "date": "a date",
    "timestamp": "a timestamp", "json": "JSON",
}  # fmt: skip


def no_value(text: str, column: Column) -> UsageError:
    """The error for a text that is not a value of the column's kind."""
    return UsageError(f"{column.name}={shortened(text)} is not a valid {column.kind}.")
