"""What the match section says of entries: which of them have terms to be found, and what else the list names. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection

from batchinfer.core.fields import Scalar
from batchinfer.core.records import Source
from batchinfer.core.sql import literal
from batchinfer.job.parts import Part, is_part
from batchinfer.job.spec import MatchSpec


def alias_columns(spec: MatchSpec | None, key: Collection[str]) -> tuple[str, ...]:
    """The columns of the list, beside its key, that hold further names of what a row is about."""
    return () if spec is None else tuple(name for name in spec.everywhere if not is_part(name, key))


def matched_sql(spec: MatchSpec, key: Collection[str], column: Callable[[str], str], *, is_json: bool) -> str:
    """A condition on entries. column: SQL for a key column. is_json: whether predictions are JSON values."""
    tests = ["true"]
    for name, wanted in spec.where.items():
        text = f"json_extract_string({Part.parse(name, key).sql(column, is_json=is_json)}, '$')"
        values = wanted if isinstance(wanted, list) else [wanted]
        tests.append("(" + " OR ".join(_equal(text, value) for value in values) + ")" if values else "false")
    if spec.min_score is not None:  # what people said has no score
        tests.append(f"(score >= {spec.min_score} OR (score IS NULL AND source <> '{Source.MODEL}'))")
    return " AND ".join(tests)


def _equal(text: str, value: Scalar) -> str:
    if isinstance(value, bool):
        return f"{text} = {literal(str(value).lower())}"
    return f"{text} = {literal(value)}" if isinstance(value, str) else f"try_cast({text} AS DOUBLE) = {value!r}"
