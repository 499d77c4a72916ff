"""What a run would cost: prompt tokens, what prefix caching will save of them, and time from earlier runs here."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from typing import Any

from batchinfer.engines import models
from batchinfer.engines.devices import find_gpus
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.engines.vllm import block_size
from batchinfer.inputs.parquet import template_values
from batchinfer.planning.prepare import Prepared
from batchinfer.prompting.template import TemplateFault

EXACT_UP_TO = 50_000
WINDOWS, WINDOW = 50, 200  # a sample keeps neighbours together, since they share prefixes
BATCH = 256


def estimate(p: Prepared, say: Callable[[str], None]) -> dict[str, Any]:
    """The result of `plan`, as its --json prints it."""
    counts = p.plan.counts
    tokens, exact, saving = _prompt_tokens(p, say) if p.question and counts.to_generate else (0, True, None)
    return {
        "job": p.job.name, "rows": counts.rows, "misses": counts.misses, "bad": counts.bad,
        "duplicates": counts.duplicates, "unique": counts.unique, "hits": counts.hits, "failures": counts.failed,
        "to_generate": counts.to_generate, "prompt_tokens": tokens,
        "prompt_tokens_exact": exact, "prefix_saving": saving, "estimate_seconds": _seconds(p),
    }  # fmt: skip


def _prompt_tokens(p: Prepared, say: Callable[[str], None]) -> tuple[int, bool, float | None]:
    """(prompt tokens of all that is to generate, whether they were all counted, share that prefix caching saves)."""
    assert p.question is not None
    assert p.job.spec.model is not None
    source = models.weights(p.question.identity, p.data, say)
    tokenizer = Tokenizer(source, p.question.identity.revision, p.question.prompt.chat_template_kwargs)
    block = block_size(p.job.spec.model.options, on_cpu=not find_gpus())
    count, exact = p.plan.counts.to_generate, p.plan.counts.to_generate <= EXACT_UP_TO
    starts = [0] if exact else [round(i * (count - WINDOW) / (WINDOWS - 1)) for i in range(WINDOWS)]
    total = shared = rows = 0
    for start in starts:
        last: list[int] = []
        window = p.plan.todo(None if exact else WINDOW, start)
        while batch := list(itertools.islice(window, BATCH)):
            for ids in _encoded(p, tokenizer, [row for _, row in batch]):
                total, rows = total + len(ids), rows + 1
                # The last token is always computed, and only whole blocks are shared.
                shared += min(_common(last, ids), len(ids) - 1) // block * block
                last = ids
    if not rows:
        return 0, True, None
    return total if exact else round(total / rows * count), exact, round(shared / total, 4)


def _encoded(p: Prepared, tokenizer: Tokenizer, rows: list[dict[str, Any]]) -> list[list[int]]:
    assert p.question is not None
    texts = []
    for row in rows:
        try:
            texts.append(tokenizer.text(p.question.template.messages(template_values(row, p.plan.source.kinds))))
        except TemplateFault:
            continue  # the run will make a failure of it
    return tokenizer.encode(texts, chat=p.question.chat)


def _common(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _seconds(p: Prepared) -> float | None:
    """Engine loading plus rows at the median rate of the last five runs that generated; None without one."""
    if p.plan.counts.to_generate == 0:
        return 0.0
    runs = [run for run in p.store.runs() if run.get("rows_per_second")][:5]
    if not runs:
        return None
    load = statistics.median(run["engine_load_seconds"] for run in runs)
    return round(float(load + p.plan.counts.to_generate / statistics.median(run["rows_per_second"] for run in runs)), 1)
