"""What a run would cost: prompt tokens, what prefix caching will save of them, and time from earlier runs here."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from batchinfer.core.records import Counts, Info
from batchinfer.engines import models
from batchinfer.engines.devices import find_gpus
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.engines.vllm import block_size
from batchinfer.planning.loadable import task_of
from batchinfer.planning.prepare import Prepared
from batchinfer.planning.question import Question
from batchinfer.prompting.template import TemplateFault

EXACT_UP_TO = 50_000
WINDOWS, WINDOW = 50, 200  # a sample keeps neighbours together, since they share prefixes
BATCH = 256


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What a run would do and cost.

    job: its name.
    counts: of the list, by what the cache has.
    prompt_tokens: of all that is to generate.
    prompt_tokens_exact: whether they were all counted.
    prefix_saving: share of them that prefix caching saves; None where nothing is to generate.
    estimate_seconds: from earlier runs here; None without one.
    prompt: the first that a run would ask, as the model sees it; where it would ask none, the first of the list, without
        the form that the model gives a chat, since no model is loaded for it; None without one.
    list_differs: that the list is another one than the served version's, as a sentence.
    """

    job: str
    counts: Counts
    prompt_tokens: int
    prompt_tokens_exact: bool
    prefix_saving: float | None
    estimate_seconds: float | None
    prompt: str | None = None
    list_differs: str | None = None

    def to_json(self) -> dict[str, Any]:
        counts = self.counts
        return {
            "job": self.job, "rows": counts.rows, "misses": counts.misses, "bad": counts.bad,
            "duplicates": counts.duplicates, "unique": counts.unique, "cached": counts.cached,
            "failed": counts.failed, "hits": counts.cached, "failures": counts.failed,
            "to_generate": counts.to_generate, "prompt_tokens": self.prompt_tokens,
            "prompt_tokens_exact": self.prompt_tokens_exact, "prefix_saving": self.prefix_saving,
            "estimate_seconds": self.estimate_seconds, "prompt": self.prompt, "list_differs": self.list_differs,
        }  # fmt: skip


def estimate(prepared: Prepared, info: Info) -> PlanReport:
    """What a run would cost."""
    counts = prepared.plan.counts
    if prepared.question is None or not counts.to_generate:
        nothing: dict[str, Any] = {"prompt_tokens": 0, "prompt_tokens_exact": True, "prefix_saving": None}
        shown = _first_prompt(prepared)
        return PlanReport(prepared.job.name, counts, **nothing, estimate_seconds=_seconds(prepared), prompt=shown)
    tokenizer = _tokenizer(prepared, prepared.question, info)
    tokens, exact, saving = _prompt_tokens(prepared, tokenizer)
    first = next(_texts(prepared, (row for _, row in prepared.plan.todo(BATCH)), tokenizer), None)
    return PlanReport(prepared.job.name, counts, tokens, exact, saving, _seconds(prepared), first)


def _first_prompt(prepared: Prepared) -> str | None:
    """The prompt of the list's first row."""
    question, row = prepared.question, prepared.query_list.first_row()
    if question is None or row is None:
        return None
    try:
        messages = question.template.messages(prepared.query_list.source.template_values(row))
    except TemplateFault:
        return None
    return "\n\n".join(content for _, content in messages)


def _tokenizer(prepared: Prepared, question: Question, info: Info) -> Tokenizer:
    """Raises ModelError, also for choices that cannot be told apart: a run would fail there."""
    source = models.weights(question.identity, prepared.data, info)
    tokenizer = Tokenizer(source, question.identity.revision, question.prompt.chat_template_kwargs)
    task_of(prepared.job, question, tokenizer)
    return tokenizer


def _prompt_tokens(prepared: Prepared, tokenizer: Tokenizer) -> tuple[int, bool, float | None]:
    """(prompt tokens of all that is to generate, whether they were all counted, share that prefix caching saves)."""
    assert prepared.job.spec.model is not None
    block = block_size(prepared.job.spec.model.options, on_cpu=not find_gpus())
    count, exact = prepared.plan.counts.to_generate, prepared.plan.counts.to_generate <= EXACT_UP_TO
    starts = [0] if exact else [round(i * (count - WINDOW) / (WINDOWS - 1)) for i in range(WINDOWS)]
    total = shared = rows = 0
    for start in starts:
        last: list[int] = []
        window = prepared.plan.todo(None if exact else WINDOW, start)
        while batch := list(itertools.islice(window, BATCH)):
            for ids in _encoded(prepared, tokenizer, [row for _, row in batch]):
                total, rows = total + len(ids), rows + 1
                # The last token is always computed, and only whole blocks are shared.
                shared += min(_common(last, ids), len(ids) - 1) // block * block
                last = ids
    if not rows:
        return 0, True, None
    return total if exact else round(total / rows * count), exact, round(shared / total, 4)


def _encoded(prepared: Prepared, tokenizer: Tokenizer, rows: list[dict[str, Any]]) -> list[list[int]]:
    assert prepared.question is not None
    return tokenizer.encode(list(_texts(prepared, rows, tokenizer)), chat=prepared.question.chat)


def _texts(prepared: Prepared, rows: Iterable[dict[str, Any]], tokenizer: Tokenizer) -> Iterator[str]:
    """The prompts of these rows, as the model sees them."""
    assert prepared.question is not None
    for row in rows:
        try:
            messages = prepared.question.template.messages(prepared.query_list.source.template_values(row))
        except TemplateFault:
            continue  # the run will make a failure of it
        yield tokenizer.text(messages)


def _common(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _seconds(prepared: Prepared) -> float | None:
    """Engine loading plus rows at the median rate of the last five runs that generated; None without one."""
    if prepared.plan.counts.to_generate == 0:
        return 0.0
    runs = [run.report for run in prepared.store.runs() if run.report.get("rows_per_second")][:5]
    if not runs:
        return None
    load = statistics.median(run["engine_load_seconds"] for run in runs)
    return round(
        float(load + prepared.plan.counts.to_generate / statistics.median(run["rows_per_second"] for run in runs)), 1
    )
