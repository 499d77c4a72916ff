"""What a run would cost: prompt tokens, what prefix caching will save of them, and time from earlier runs here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from batchinfer.core.records import Counts, Info, Prompt
from batchinfer.engines import models
from batchinfer.engines.choices import ChoiceScoring
from batchinfer.engines.devices import find_gpus
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.engines.vllm import block_size
from batchinfer.engines.window import window_of
from batchinfer.inputs.place import ListFacts
from batchinfer.planning.prepare import Prepared
from batchinfer.planning.price import CascadePlan, price_cascade
from batchinfer.planning.prompts import FilledPrompt, PromptMaker, too_long
from batchinfer.planning.question import Question
from batchinfer.planning.rates import run_reports, seconds_of
from batchinfer.prompting.template import TemplateFault

EXACT_UP_TO = 50_000
WINDOWS, WINDOW = 50, 200  # a sample keeps neighbours together, since they share prefixes
BATCH = 256
EXACT_CHARACTERS = 10_000_000  # of all prompts that are counted one by one
CHARACTERS = (
    100_000  # of a window of the sample, and of what is tokenised at once; the rest of a longer prompt is guessed
)
MOST_NAMED = 5  # rows that do not fit


@dataclass(frozen=True, slots=True)
class ScoringReport:
    """How choices would be scored.

    requests: to the model for each prompt: one where first tokens are scored, one for each choice where whole choices are.
    whole: whether whole choices are scored.
    collisions: the choices that begin with one token, a sentence for each token.
    """

    requests: int
    whole: bool
    collisions: tuple[str, ...]

    @classmethod
    def of(cls, scoring: ChoiceScoring | None) -> Self | None:
        """None in a job without choices."""
        if scoring is None:
            return None
        whole = scoring.first_tokens is None
        return cls(len(scoring.continuations) if whole else 1, whole, tuple(map(str, scoring.collisions)))

    def to_json(self) -> dict[str, Any]:
        return {"requests": self.requests, "whole": self.whole, "collisions": list(self.collisions)}


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What a run would do and cost.

    job: its name.
    counts: of the list, by what the cache has.
    prompt_tokens: of all that is to generate; where whole choices are scored, a prompt counts with each of them.
    prompt_tokens_exact: whether they were all counted.
    prefix_saving: share of them that prefix caching saves; None where nothing is to generate.
    estimate_seconds: from earlier runs here; None without one.
    prompt: the first that a run would ask, as the model sees it; where it would ask none, the first of the list, without
        the form that the model gives a chat, since no model is loaded for it; None without one.
    list_differs: that the list is another one than the served version's, as a sentence.
    scoring: how choices would be scored; None without choices, or where nothing is to generate.
    window: tokens of a prompt and its answer together, as the job or the model's own files say; None where neither does.
    looked_at: prompts that were held against it; fewer than all in a long list, of which a sample is counted.
    too_long: those of them that do not fit it.
    too_long_rows: the lookup keys of the first of them.
    estimate_money: what the answers would cost, by what answers of earlier runs cost; None without a price or such a run.
    currency: of that.
    made_of: what the list is, as versions record it.
    cascade: what each of two models would be asked; None in a job with one. All else is of the model that is asked next, but
        for `estimate_seconds`, which is of both.
    """

    job: str
    counts: Counts
    prompt_tokens: int
    prompt_tokens_exact: bool
    prefix_saving: float | None
    estimate_seconds: float | None
    prompt: str | None = None
    list_differs: str | None = None
    scoring: ScoringReport | None = None
    window: int | None = None
    looked_at: int = 0
    too_long: int = 0
    too_long_rows: tuple[dict[str, Any], ...] = ()
    cascade: CascadePlan | None = None
    estimate_money: float | None = None
    currency: str | None = None
    made_of: ListFacts | None = None

    def to_json(self) -> dict[str, Any]:
        counts = self.counts
        return {
            "job": self.job, "rows": counts.rows, "misses": counts.misses, "bad": counts.bad,
            "duplicates": counts.duplicates, "unique": counts.unique, "cached": counts.cached,
            "failed": counts.failed, "hits": counts.cached, "failures": counts.failed,
            "to_generate": counts.to_generate, "prompt_tokens": self.prompt_tokens,
            "prompt_tokens_exact": self.prompt_tokens_exact, "prefix_saving": self.prefix_saving,
            "estimate_seconds": self.estimate_seconds, "estimate_money": self.estimate_money,
            "currency": self.currency, "prompt": self.prompt, "list_differs": self.list_differs,
            "scoring": self.scoring.to_json() if self.scoring else None,
            "window": self.window, "looked_at": self.looked_at, "too_long": self.too_long, "too_long_rows": list(self.too_long_rows),
            "list": self.made_of.to_json() if self.made_of else None,
            **({} if self.cascade is None else {"cascade": self.cascade.to_json()}),
        }  # fmt: skip


def estimate(prepared: Prepared, info: Info) -> PlanReport:
    """What a run would cost."""
    if prepared.cascade is None:
        return _estimate(prepared, info)
    priced = price_cascade(prepared.cascade, prepared.store)
    next_model = replace(prepared, question=prepared.asking)
    return replace(_estimate(next_model, info), cascade=priced, estimate_seconds=priced.estimate_seconds)


def _estimate(prepared: Prepared, info: Info) -> PlanReport:
    counts = prepared.plan.counts
    if prepared.question is None or not counts.to_generate:
        nothing: dict[str, Any] = {"prompt_tokens": 0, "prompt_tokens_exact": True, "prefix_saving": None}
        shown = _first_prompt(prepared)
        return PlanReport(prepared.job.name, counts, **nothing, estimate_seconds=_seconds(prepared), prompt=shown)
    source = models.weights(prepared.question.identity, prepared.data, info)
    maker = _maker(prepared, prepared.question, source)
    assert prepared.question.spec.model is not None
    window = window_of(prepared.question.spec.model.options, source, prepared.question.identity.revision)
    found, exact = _look_at(prepared, maker, window)
    long = list(dict.fromkeys(found.long))
    first = next(_filled(prepared, prepared.plan.todo(BATCH), maker), None)
    shown = None if first is None else maker.text(first)
    return PlanReport(
        prepared.job.name,
        counts,
        found.total if exact else round(found.total / found.rows * counts.to_generate),
        exact,
        round(found.shared / found.total, 4) if found.total else None,
        _seconds(prepared),
        shown,
        scoring=ScoringReport.of(maker.scoring),
        window=window,
        looked_at=found.rows if window else 0,
        too_long=len(long),
        too_long_rows=tuple(prepared.query_list.queries(long[:MOST_NAMED]).values()),
    )


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


def _maker(prepared: Prepared, question: Question, source: str) -> PromptMaker:
    """Raises SpecError or ModelError where a run would, once the tokenizer is there."""
    tokenizer = Tokenizer(source, question.identity.revision, question.prompt.chat_template_kwargs)
    return PromptMaker(prepared.job, question, tokenizer)


@dataclass(slots=True)
class _Tokens:
    """What was counted of prompts that follow each other: rows, their tokens, and those that the one before has, too.

    most: tokens of the window, if it is known. long: the keys of prompts that do not fit it.
    """

    block: int
    most: int | None
    rows: int = 0
    total: int = 0
    shared: int = 0
    last: tuple[int, ...] = ()
    long: list[bytes] = field(default_factory=list)

    def add(self, prompt: Prompt, times: float) -> None:
        """times: of how many such parts the prompt is."""
        self.rows += 1
        if self.most is not None and too_long(prompt, self.most):
            self.long.append(prompt.prompt_key)
        for ids in _requests(prompt):
            self.total += round(len(ids) * times)
            # The prompt's last token is always computed, and only whole blocks are shared.
            self.shared += min(_common(self.last, ids), len(prompt.token_ids) - 1) // self.block * self.block
            self.last = ids


def _look_at(prepared: Prepared, maker: PromptMaker, window: int | None) -> tuple[_Tokens, bool]:
    """The prompts that are to generate, counted, and whether they all were. window: see `PlanReport`."""
    assert prepared.question is not None
    assert prepared.question.spec.model is not None
    options, count = prepared.question.spec.model.options, prepared.plan.counts.to_generate
    block = block_size(options, on_cpu=not find_gpus())
    found = _Tokens(block, window)
    if count <= EXACT_UP_TO and _count(prepared, maker, found, prepared.plan.todo(), EXACT_CHARACTERS):
        return found, True
    found = _Tokens(block, window)
    for number in range(WINDOWS):
        found.last = ()
        start = round(number * max(count - WINDOW, 0) / (WINDOWS - 1))
        _count(prepared, maker, found, prepared.plan.todo(WINDOW, start), CHARACTERS)
    return found, not found.rows


def _requests(prompt: Prompt) -> Iterator[tuple[int, ...]]:
    """The tokens of each request that an engine makes of a prompt."""
    if not prompt.continuations:
        yield prompt.token_ids
    for continuation in prompt.continuations:
        yield prompt.token_ids + continuation.token_ids


def _count(
    prepared: Prepared, maker: PromptMaker, found: _Tokens, rows: Iterable[tuple[bytes, dict[str, Any]]], most: int
) -> bool:
    """Adds these prompts; returns whether all of them have at most so many characters. Those beyond are left out."""
    left, waiting, size = most, list[FilledPrompt](), 0
    for filled in _filled(prepared, rows, maker):
        left -= filled.size if filled.size <= CHARACTERS else most + 1  # which is not counted as a whole
        waiting.append(filled)
        size += filled.size
        if len(waiting) == BATCH or left < 0 or size > CHARACTERS:
            _add(maker, found, waiting)
            waiting, size = [], 0
        if left < 0:
            return False
    _add(maker, found, waiting)
    return True


def _add(maker: PromptMaker, found: _Tokens, rows: Sequence[FilledPrompt]) -> None:
    """Adds these prompts, those that are long by their beginnings."""
    short = [filled.beginning(CHARACTERS) for filled in rows]
    for prompt, part, filled in zip(maker.prompts(short), short, rows, strict=True):
        found.add(prompt, filled.size / max(part.size, 1))


def _filled(
    prepared: Prepared, rows: Iterable[tuple[bytes, dict[str, Any]]], maker: PromptMaker
) -> Iterator[FilledPrompt]:
    """The prompts of these rows; none of a row that the run will make a failure of."""
    for prompt_key, row in rows:
        with contextlib.suppress(TemplateFault):
            yield maker.fill(prompt_key, prepared.query_list.source.template_values(row))


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _seconds(prepared: Prepared) -> float | None:
    """None without a run that asked the job's model."""
    count, question = prepared.plan.counts.to_generate, prepared.question
    model = "" if question is None else question.identity.label
    return seconds_of(run_reports(prepared.store), model, count, alone=True)
