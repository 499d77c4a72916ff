"""What a plan comes to, for tests of lists and of plans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from batchinfer.core.records import Counts, Failure
from tests.factories import Reply, World

Make = Callable[..., World]
REFUSED = Failure(None, "engine", "refused", "The engine would not.")


def counts(world: World, **options: Any) -> Counts:
    with world.prepared(**options) as p:
        adds_up(p.plan.counts)
        return p.plan.counts


def adds_up(found: Counts) -> None:
    assert found.rows == found.bad + found.duplicates + found.unique
    assert found.unique == found.cached + found.failed + found.to_generate


def asked(world: World, column: str = "text", **options: Any) -> list[Any]:
    """The column's value in each row that a run would generate, in order."""
    with world.prepared(**options) as p:
        adds_up(p.plan.counts)
        rows = [row[column] for _, row in p.plan.todo()]
        assert len(rows) == p.plan.counts.to_generate
        return rows


def echo(row: dict[str, Any]) -> Reply:
    return f"about {row['text']}"
