"""The files of a version, and the columns of its predictions."""

from __future__ import annotations

from batchinfer.core.sql import quoted

FORMAT = 1
MANIFEST = "manifest.json"
LOOKUP = "lookup.lmdb"
PREDICTIONS = "predictions.parquet"
VALUE_COLUMNS = "prediction, raw_text, scores, score, mass, source, model, run_id, generated_at, carried"
RESERVED = frozenset([*VALUE_COLUMNS.split(", "), "lookup"])


def version_column(name: str) -> str:
    """SQL for a key column's name in predictions.parquet: its own, or key_NAME where that is one of ours."""
    return quoted(f"key_{name}" if name.lower() in RESERVED else name)
