"""Lists that are reviewed, for tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tests.factories import World

Make = Callable[..., World]
LIST = {"id": ["a", "b", "c"], "text": ["x", "y", "z"]}
CHECK: dict[str, Any] = {
    "input": {"path": "queries.parquet", "key": ["thing", "term"]},
    "prompt": {"template": "{{ thing }} {{ term }}"},
    "output": {"type": "choice", "choices": ["Yes", "No"]},
    "match": {"terms": ["term"], "concept": "thing", "where": {"prediction": "Yes"}},
}
CHOICE = {"type": "choice", "choices": ["Yes", "No"]}
NAMES = {
    "type": "json",
    "schema": {"type": "object", "properties": {"names": {"type": "array", "items": {"type": "string"}}}, "required": ["names"]},
}  # fmt: skip


def scores(yes: float) -> list[float]:
    return [math.log(yes), math.log(1 - yes)]


def echo(row: dict[str, Any]) -> str:
    return f"about {row['text']}"


def stored(world: World) -> list[tuple[Any, ...]]:
    with world.store.open() as db:
        return db.execute(
            "SELECT query, verdict, value, prediction, author FROM imports ORDER BY import_id, query, verdict"
        ).fetchall()
