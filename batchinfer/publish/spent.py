"""What the answers of a candidate took to make: each has the share of its run that its tokens have.

    runs (what each used) ─┐
    generations ───────────┼─► answer_costs ─► in all, and by the groups of audit.slices
    entries ───────────────┘

| table        | columns                                      | what it holds                            |
| ------------ | -------------------------------------------- | ---------------------------------------- |
| answer_costs | lookup_hash, tokens, device_seconds, money   | each entry that a model gave; NULL where |
|              |                                              | nothing is known of its run              |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from batchinfer.cache.workspace import Workspace
from batchinfer.core.cost import Cost, Price
from batchinfer.core.records import Source
from batchinfer.publish.sliced import SlicedKeys
from batchinfer.versions.answers_cost import AnswersCost, GroupCost, VersionCost

RATES = pa.schema({"run_id": pa.int32(), "device_seconds": pa.float64(), "money": pa.float64()})  # of a computed token
SUMS = "count(*), count(tokens), sum(tokens), sum(device_seconds), sum(money)"


def version_cost(workspace: Workspace, entries: str) -> VersionCost | None:
    """entries: SQL for lookup hash, prompt key and source of what would be published. None in a job without a model."""
    if workspace.spec.prompt is None:
        return None
    spec, db = workspace.spec, workspace.db
    price = spec.cost.price if spec.cost else None
    db.register("cost_rates", pa.Table.from_pylist(_rates(workspace, price), RATES))
    with workspace.store.attached(db):
        db.execute(
            f"""CREATE OR REPLACE TABLE answer_costs AS
            WITH given AS (SELECT lookup_hash, prompt_key FROM {entries} WHERE source = '{Source.MODEL}'),
            asked AS (SELECT prompt_key AS key, count(*) AS sharing FROM given GROUP BY prompt_key),
            made AS (SELECT key, (prompt_tokens - cached_tokens + output_tokens) / sharing AS tokens, run_id
                     FROM cache.generations JOIN asked USING (key))
            SELECT lookup_hash, CASE WHEN r.run_id IS NOT NULL THEN tokens END AS tokens,
                   tokens * r.device_seconds AS device_seconds, tokens * r.money AS money
            FROM given LEFT JOIN made ON made.key = given.prompt_key LEFT JOIN cost_rates r USING (run_id)"""
        )
    db.unregister("cost_rates")
    [whole] = db.execute(f"SELECT {SUMS} FROM answer_costs").fetchall()
    return VersionCost(_cost(whole, price), tuple(_slices(workspace, entries, price)))


def _rates(workspace: Workspace, price: Price | None) -> list[dict[str, Any]]:
    """What a computed token took, in each run that said what it used."""
    found = []
    for run in workspace.store.runs():
        cost = Cost.of(run.report.get("cost"))
        if cost is None or cost.computed_tokens <= 0:
            continue
        paid = cost.money if price is not None and cost.currency == price.currency else None
        if paid is None and price is not None:
            paid = price.of_seconds(cost.device_seconds)
        each = {"device_seconds": cost.device_seconds / cost.computed_tokens}
        found.append({"run_id": run.run_id, **each, "money": None if paid is None else paid / cost.computed_tokens})
    return found


def _slices(workspace: Workspace, entries: str, price: Price | None) -> list[GroupCost]:
    """Groups that are too small to be told of are left out."""
    columns, least = workspace.spec.audit.slices, workspace.spec.audit.limits.least_rows
    if not columns:
        return []
    keys = SlicedKeys(workspace, columns)
    keys.fill(entries, None)
    return [
        GroupCost(column, value, _cost(sums, price))
        for column in columns
        for value, *sums in keys.sums(column, "answer_costs", SUMS, least)
    ]


def _cost(sums: Sequence[Any], price: Price | None) -> AnswersCost:
    answers, known, tokens, seconds, money = sums
    return AnswersCost(
        answers, known, round(tokens or 0), round(seconds or 0.0, 3), None if price is None else money or 0.0,
        None if price is None else price.currency,
    )  # fmt: skip
