"""Names, texts and places in JSON, as SQL has them."""

from __future__ import annotations

from pathlib import Path

LISTED = "q_"  # the list's own columns bear it in scratch tables, so that none is taken for one of ours


def quoted(name: str) -> str:
    """A column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL, where it cannot be bound."""
    return "'" + text.replace("'", "''") + "'"


def parquet_rows(path: Path) -> str:
    """SQL for the rows of one Parquet file that this program wrote.

    A path is a name: its stars and brackets are no pattern, and `town=Ulm` in it is no column.
    """
    name = "".join(f"[{sign}]" if sign in "*?[" else sign for sign in str(path))
    return f"read_parquet({literal(name)}, hive_partitioning = false)"


def json_path(*names: str) -> str:
    """DuckDB's path to a field of a JSON object, or to one within it."""
    escaped = [name.replace("\\", "\\\\").replace('"', '\\"') for name in names]
    return "$" + "".join(f'."{name}"' for name in escaped)


def listed(name: str) -> str:
    """SQL for one of the list's own columns in a scratch table."""
    return quoted(LISTED + name)
