"""Choices divided by how likely each is over the whole list, so that a label that a model likes anyway does not win: output.prior."""

from __future__ import annotations

from collections.abc import Sequence

from batchinfer.cache.workspace import Workspace
from batchinfer.core.sql import json_path, literal

GENERATIONS = "cache.generations"


Means = Sequence[float | None]
"""What each choice has over a list on average; None where no row has scores."""


def choice_means(workspace: Workspace, rows: str) -> Means:
    """The means over these rows, where the cache is attached. rows: SQL for them."""
    scores = ", ".join(f"avg({score})" for score in _scores(workspace))
    sql = f"SELECT {scores} FROM {rows} k JOIN {GENERATIONS} g ON g.key = k.prompt_key"
    return workspace.db.execute(sql).fetchall()[0]


def _scores(workspace: Workspace) -> list[str]:
    """SQL for the score of each choice."""
    return [f"(g.scores ->> {literal(json_path(choice))})::DOUBLE" for choice in workspace.spec.output.choices or []]


def read_generations(workspace: Workspace, rows: str, prior: str | None = None, means: Means | None = None) -> str:
    """SQL for the generations as the job reads them, where the cache is attached.

    rows: SQL for the rows of the list, over which the means are taken. prior: in place of the job file's. means: of another
    list, in place of those of the rows.
    """
    choices = workspace.spec.output.choices
    if (prior or workspace.spec.output.prior) == "none" or not choices:
        return GENERATIONS
    scores, means = _scores(workspace), choice_means(workspace, rows) if means is None else means
    # A choice that no row gives any probability is no likelier than before; without rows there is nothing to divide.
    divided = ", ".join(f"{score} / {mean or 1!r}" for score, mean in zip(scores, means, strict=True))
    shares = ", ".join(
        f"{literal(choice)}, divided[{place}] / list_sum(divided)" for place, choice in enumerate(choices, 1)
    )
    best = "list_position(divided, list_max(divided))"  # the first listed among equals
    listed = ", ".join(map(literal, choices))
    return f"""(
        SELECT * EXCLUDE (divided) REPLACE (
            to_json([{listed}][{best}])::VARCHAR AS prediction,
            list_max(divided) / list_sum(divided) AS score, json_object({shares})::VARCHAR AS scores)
        FROM (SELECT g.*, [{divided}] AS divided FROM {GENERATIONS} g WHERE g.scores IS NOT NULL AND g.prediction IS NOT NULL))"""
