"""Names, texts and places in JSON, as SQL has them."""

from __future__ import annotations

LISTED = "q_"  # the list's own columns bear it in scratch tables, so that none is taken for one of ours


def quoted(name: str) -> str:
    """A column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL, where it cannot be bound."""
    return "'" + text.replace("'", "''") + "'"


def json_path(*names: str) -> str:
    """DuckDB's path to a field of a JSON object, or to one within it."""
    escaped = [name.replace("\\", "\\\\").replace('"', '\\"') for name in names]
    return "$" + "".join(f'."{name}"' for name in escaped)


def listed(name: str) -> str:
    """SQL for one of the list's own columns in a scratch table."""
    return quoted(LISTED + name)
