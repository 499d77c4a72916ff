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
from batchinfer.core.database import one
from batchinfer.core.records import Source
from batchinfer.publish.sliced import SlicedKeys
from batchinfer.versions.answers_cost import AnswersCost, GroupCost, VersionCost

RATES = pa.schema({"run_id": pa.int32(), "model": pa.string(), "device_seconds": pa.float64(), "money": pa.float64()})
RATED = "r.run_id = g.run_id AND coalesce(r.model, g.model) IS NOT DISTINCT FROM g.model"
TOKENS = "(g.prompt_tokens - g.cached_tokens + g.output_tokens)"


def version_cost(workspace: Workspace, entries: str) -> VersionCost | None:
    """entries: SQL for what would be published. None in a job without a model."""
    if workspace.spec.prompt is None:
        return None
    spec, db = workspace.spec, workspace.db
    price = spec.cost.price if spec.cost else None
    rates = _rates(workspace, price)
    if not rates:  # of older programs, or by imports alone: nothing is looked for
        count = one(db, f"SELECT count(*) FROM {entries} WHERE source = '{Source.MODEL}'")
        return VersionCost(_cost((int(count), 0, None, None, None), price))
    db.register("cost_rates", pa.Table.from_pylist(rates, RATES))
    try:
        return VersionCost(_whole(workspace, entries, price), tuple(_slices(workspace, entries, price)))
    finally:
        db.unregister("cost_rates")


def _rates(workspace: Workspace, price: Price | None) -> list[dict[str, Any]]:
    """What a computed token took, in each run that said what it used, for each of its models."""
    found = []
    for run in workspace.store.runs():
        cost = Cost.of(run.report.get("cost"))
        if cost is None:
            continue
        per_second = None if price is None else price.of_seconds(1.0)
        if cost.money is not None and price is not None and cost.currency == price.currency and cost.device_seconds:
            per_second = cost.money / cost.device_seconds
        for model, seconds, tokens in cost.shares:
            if tokens:
                money = None if per_second is None else seconds * per_second / tokens
                found.append({"run_id": run.run_id, "model": model, "device_seconds": seconds / tokens, "money": money})
    return found


def _whole(workspace: Workspace, entries: str, price: Price | None) -> AnswersCost:
    """Of all answers. A prompt that several entries have is counted once."""
    db, made = workspace.db, f"(SELECT prompt_key, run_id, model FROM {entries} WHERE source = '{Source.MODEL}')"
    known = f"SELECT prompt_key FROM {made} g JOIN cost_rates r ON {RATED} WHERE prompt_key IS NOT NULL"
    answers, count = db.execute(f"SELECT (SELECT count(*) FROM {made}), (SELECT count(*) FROM ({known}))").fetchall()[0]
    with workspace.store.attached(db):
        sums = db.execute(
            f"""SELECT sum(tokens), sum(tokens * r.device_seconds), sum(tokens * r.money) FROM (
                SELECT run_id, model, sum({TOKENS}) AS tokens FROM cache.generations g
                WHERE key IN (SELECT prompt_key FROM {made}) GROUP BY run_id, model) g JOIN cost_rates r ON {RATED}"""
        ).fetchall()[0]
    return _cost((answers, count, *sums), price)


def _slices(workspace: Workspace, entries: str, price: Price | None) -> list[GroupCost]:
    """Groups that are too small to be told of are left out."""
    columns, least, db = workspace.spec.audit.slices, workspace.spec.audit.limits.least_rows, workspace.db
    if not columns:
        return []
    with workspace.store.attached(db):
        db.execute(
            f"""CREATE OR REPLACE TABLE answer_costs AS
            WITH given AS (SELECT lookup_hash, prompt_key FROM {entries} WHERE source = '{Source.MODEL}'),
            asked AS (SELECT prompt_key AS key, count(*) AS sharing FROM given GROUP BY prompt_key),
            made AS (SELECT key, {TOKENS} / sharing AS tokens, run_id, model FROM cache.generations g JOIN asked USING (key))
            SELECT lookup_hash, CASE WHEN r.run_id IS NOT NULL THEN tokens END AS tokens,
                   tokens * r.device_seconds AS device_seconds, tokens * r.money AS money
            FROM given LEFT JOIN made g ON g.key = given.prompt_key LEFT JOIN cost_rates r ON {RATED}"""
        )
    keys = SlicedKeys(workspace, columns)
    if not workspace.spec.gate.audit:  # otherwise the gate has just put the keys into their groups
        keys.fill(entries, None)
    sums = "count(*), count(tokens), sum(tokens), sum(device_seconds), sum(money)"
    return [
        GroupCost(column, value, _cost(found, price))
        for column in columns
        for value, *found in keys.sums(column, "answer_costs", sums, least)
    ]


def _cost(sums: Sequence[Any], price: Price | None) -> AnswersCost:
    answers, known, tokens, seconds, money = sums
    return AnswersCost(
        answers, known, round(tokens or 0), round(seconds or 0.0, 3), None if price is None else money or 0.0,
        None if price is None else price.currency,
    )  # fmt: skip
