"""Names, texts and places in JSON, as SQL has them."""

from __future__ import annotations


def quoted(name: str) -> str:
    """A column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL, where it cannot be bound."""
    return "'" + text.replace("'", "''") + "'"


def json_path(*names: str) -> str:
    """DuckDB's path to a field of a JSON object, or to one within it."""
    return "$" + "".join('."' + name.replace('"', '\\"') + '"' for name in names)
