"""SQL for the parts of an entry that a match section names, and for whether its terms are to be found. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection

from batchinfer.core.fields import Scalar
from batchinfer.core.sql import json_path, literal
from batchinfer.job.spec import MatchSpec


def part_sql(part: str, key: Collection[str], kind: str, column: Callable[[str], str]) -> str:
    """SQL for a part of an entry, as JSON: a key column, the prediction, or a place in it; NULL where there is none.

    kind: of the predictions, as the manifest says it. column: SQL for a key column.
    """
    if part in key:
        return f"to_json({column(part)})"
    prediction = "prediction::JSON" if kind == "json" else "to_json(prediction)"
    names = part.split(".")[1:]
    return f"json_extract({prediction}, {literal(json_path(*names))})" if names else prediction


def matched_sql(spec: MatchSpec, key: Collection[str], kind: str, column: Callable[[str], str]) -> str:
    """SQL for whether an entry's terms are to be found, by `where` and `min_score`."""
    tests = ["true"]
    for part, wanted in spec.where.items():
        text = f"json_extract_string({part_sql(part, key, kind, column)}, '$')"
        values = wanted if isinstance(wanted, list) else [wanted]
        tests.append("(" + " OR ".join(_equal(text, value) for value in values) + ")" if values else "false")
    if spec.min_score is not None:  # what people said has no score
        tests.append(f"(score >= {spec.min_score} OR (score IS NULL AND source <> 'model'))")
    return " AND ".join(tests)


def _equal(text: str, value: Scalar) -> str:
    if isinstance(value, bool):
        return f"{text} = {literal(str(value).lower())}"
    return f"{text} = {literal(value)}" if isinstance(value, str) else f"try_cast({text} AS DOUBLE) = {value!r}"
