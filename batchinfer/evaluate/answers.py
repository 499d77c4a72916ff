"""What the cache holds of an arm's rows: answers with their scores and tokens, and failures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from batchinfer.evaluate.ask import AskedArm
from batchinfer.publish.prior import Means, read_generations


@dataclass(frozen=True, slots=True)
class ArmAnswer:
    """An arm's answer to one row.

    value: the prediction; None without one.
    score: of the value; None in a job without choices, or without a prediction.
    scores: of each choice.
    reason: why there is no prediction, in a word.
    prompt_tokens: how many the prompt has; None where no answer came.
    cached_tokens: those of them that prefix caching saved.
    output_tokens: how many were generated.
    """

    value: Any = None
    score: float | None = None
    scores: dict[str, float] | None = None
    reason: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None


def read_arm(asked: AskedArm) -> dict[bytes, ArmAnswer]:
    """The answers by lookup hash. Raises StoreError."""
    return {bytes(lookup_hash): answer for lookup_hash, answer in _read(asked, "lookup_hash")}


def read_rows(asked: AskedArm, means: Means | None) -> dict[int, ArmAnswer]:
    """The answers by the number of the row in the list, from 1; none to rows that are bad. Raises StoreError.

    means: by which output.prior divides them; None for those of the rows themselves.
    """
    return dict(_read(asked, "row", means))


def _read(asked: AskedArm, column: str, means: Means | None = None) -> list[tuple[Any, ArmAnswer]]:
    """The answers, each beside a column of the list."""
    prepared, parser = asked.prepared, asked.question.parser_id
    failed = (
        "(SELECT key, first(reason) AS reason FROM cache.failures "
        f"WHERE stage <> 'input' AND (stage = 'engine' OR parser = '{parser}') GROUP BY key)"
    )
    with prepared.store.attached(prepared.workspace.db):
        generations = read_generations(prepared.workspace, prepared.query_list.rows_sql, asked.arm.prior, means)
    sql = (
        f"SELECT l.{column}, g.prediction, g.score, g.scores, f.reason, g.prompt_tokens, g.cached_tokens, g.output_tokens "
        f"FROM {prepared.query_list.rows_sql} l LEFT JOIN {generations} g ON g.key = l.prompt_key "
        f"LEFT JOIN {failed} f ON f.key = l.prompt_key"
    )
    with prepared.store.attached(prepared.workspace.db):
        rows = prepared.workspace.db.execute(sql).fetchall()
    whole = prepared.workspace.texts.whole_rows(rows)
    return [(place, _answer(*columns)) for place, *columns in whole]


def _answer(
    prediction: str | None, score: float | None, scores: str | None, reason: str | None, *tokens: int | None
) -> ArmAnswer:
    if prediction is None:
        return ArmAnswer(None, None, None, reason or "not_asked", *tokens)
    return ArmAnswer(json.loads(prediction), score, None if scores is None else json.loads(scores), None, *tokens)
