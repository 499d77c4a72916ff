"""Names, texts and places in JSON, as SQL has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from batchinfer.core.columns import Column

LISTED = "q_"  # the list's own columns bear it in scratch tables, so that none is taken for one of ours


def quoted(name: str) -> str:
    """A column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL, where it cannot be bound."""
    return "'" + text.replace("'", "''") + "'"


def time_text(time: str, *, zoned: bool) -> str:
    """SQL for a time as RFC 3339 has it, in UTC; one without a zone ends where its zone would be."""
    fraction = f"CASE WHEN epoch_us({time}) % 1000000 <> 0 THEN strftime({time}, '.%f') ELSE '' END"
    zone = "Z" if zoned else ""
    return f"strftime({time}, '%Y-%m-%dT%H:%M:%S') || {fraction} || '{zone}'"


def query_json(key: Sequence[Column], named: Callable[[str], str]) -> str:
    """SQL for a lookup key as JSON. named: SQL for a key column, from its name."""
    values = (
        time_text(named(column.name), zoned=column.zoned) if column.kind == "timestamp" else named(column.name)
        for column in key
    )
    return f"json_object({', '.join(f'{literal(column.name)}, {value}' for column, value in zip(key, values, strict=True))})"


def json_path(*names: str) -> str:
    """DuckDB's path to a field of a JSON object, or to one within it."""
    escaped = [name.replace("\\", "\\\\").replace('"', '\\"') for name in names]
    return "$" + "".join(f'."{name}"' for name in escaped)


def listed(name: str) -> str:
    """SQL for one of the list's own columns in a scratch table."""
    return quoted(LISTED + name)
