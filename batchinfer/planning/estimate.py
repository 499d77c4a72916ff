"""What a run would cost: prompt tokens, what prefix caching will save of them, and time from earlier runs here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from batchinfer.cache.chunks import read_chunks
from batchinfer.core.records import Counts, Info
from batchinfer.engines import models
from batchinfer.engines.choices import ChoiceScoring
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.engines.window import window_of
from batchinfer.inputs.place import ListFacts
from batchinfer.job.engine_spec import OpenAIBatchSpec
from batchinfer.planning.advice import OrderAdvice, advise
from batchinfer.planning.plan import AnswerLengths
from batchinfer.planning.prepare import Prepared
from batchinfer.planning.price import CascadePlan, price_cascade
from batchinfer.planning.prompts import PromptMaker
from batchinfer.planning.rates import RUNS, load_seconds, run_reports, seconds_of
from batchinfer.planning.speed import LoadTime, Speed, TimeEstimate, Work, engine_room, engine_setting
from batchinfer.planning.tokens import BATCH, TokenCount, count_tokens, filled_prompts
from batchinfer.prompting.template import TemplateFault

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
    estimate: the same with its interval; None where two models share the list, too.
    prompt: the first that a run would ask, as the model sees it; where it would ask none, the first of the list, without
        the form that the model gives a chat, since no model is loaded for it; None without one.
    list_differs: that the list is another one than the served version's, as a sentence.
    scoring: how choices would be scored; None without choices, or where nothing is to generate.
    window: tokens of a prompt and its answer together, as the job or the model's own files say; None where neither does.
    looked_at: prompts that were held against it; fewer than all in a long list, of which a sample is counted.
    too_long: those of them that do not fit it.
    too_long_rows: the lookup keys of the first of them.
    no_prompt: rows that were looked at of which no prompt can be made, so that they will fail.
    no_prompt_rows: the first of them: `query`, the lookup key, and `detail`, why.
    estimate_money: what the answers would cost, by what answers of earlier runs cost; None without a price or such a run.
    currency: of that.
    made_of: what the list is, as versions record it.
    advice: another order of the template's parts, in which prompts would share more; None without one.
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
    no_prompt: int = 0
    no_prompt_rows: tuple[dict[str, Any], ...] = ()
    cascade: CascadePlan | None = None
    estimate_money: float | None = None
    currency: str | None = None
    made_of: ListFacts | None = None
    estimate: TimeEstimate | None = None
    advice: OrderAdvice | None = None

    def to_json(self) -> dict[str, Any]:
        counts = self.counts
        return {
            "job": self.job, "rows": counts.rows, "misses": counts.misses, "bad": counts.bad,
            "duplicates": counts.duplicates, "unique": counts.unique, "cached": counts.cached,
            "failed": counts.failed, "hits": counts.cached, "failures": counts.failed,
            "to_generate": counts.to_generate, "prompt_tokens": self.prompt_tokens,
            "prompt_tokens_exact": self.prompt_tokens_exact, "prefix_saving": self.prefix_saving,
            "estimate_seconds": self.estimate_seconds,
            "estimate": self.estimate.to_json() if self.estimate else None, "advice": self.advice.to_json() if self.advice else None,
            "estimate_money": self.estimate_money,
            "currency": self.currency, "prompt": self.prompt, "list_differs": self.list_differs,
            "scoring": self.scoring.to_json() if self.scoring else None,
            "window": self.window, "looked_at": self.looked_at, "too_long": self.too_long, "too_long_rows": list(self.too_long_rows),
            "no_prompt": self.no_prompt, "no_prompt_rows": list(self.no_prompt_rows),
            "list": self.made_of.to_json() if self.made_of else None,
            **({} if self.cascade is None else {"cascade": self.cascade.to_json()}),
        }  # fmt: skip


def estimate(prepared: Prepared, info: Info) -> PlanReport:
    """What a run would cost."""
    if prepared.cascade is None:
        return _estimate(prepared, info)
    priced = price_cascade(prepared.cascade, prepared.store)
    next_model = replace(prepared, question=prepared.current_question)
    found = _estimate(next_model, info)
    return replace(found, cascade=priced, estimate_seconds=priced.estimate_seconds, estimate=None)


def _estimate(prepared: Prepared, info: Info) -> PlanReport:
    counts = prepared.plan.counts
    if prepared.question is None or not counts.to_generate:
        nothing: dict[str, Any] = {"prompt_tokens": 0, "prompt_tokens_exact": True, "prefix_saving": None}
        seconds = None if counts.to_generate else 0.0
        return PlanReport(
            prepared.job.name, counts, **nothing, estimate_seconds=seconds, prompt=_first_prompt(prepared)
        )
    source = models.weights(prepared.question.identity, prepared.data, info)
    tokenizer = Tokenizer(source, prepared.question.identity.revision, prepared.question.prompt.chat_template_kwargs)
    maker = PromptMaker(prepared.job, prepared.question, tokenizer)  # raises where a run would
    assert prepared.question.spec.model is not None
    window = window_of(prepared.question.spec.model.options, source, prepared.question.identity.revision)
    found = count_tokens(prepared, maker, window)
    long = list(dict.fromkeys(found.long))
    first = next(filled_prompts(prepared, prepared.plan.todo(BATCH), maker), None)
    time = foresee(prepared, found)
    return PlanReport(
        prepared.job.name,
        counts,
        found.tokens_of(counts.to_generate),
        found.is_exact and maker.is_exact,
        None if found.saving is None else round(found.saving, 4),
        None if time is None else time.seconds,
        None if first is None else maker.text(first),
        estimate=time,
        advice=advise(prepared, tokenizer, found),
        scoring=ScoringReport.of(maker.scoring),
        window=window,
        looked_at=found.rows if window else 0,
        too_long=len(long),
        too_long_rows=tuple(prepared.query_list.queries(long[:MOST_NAMED]).values()),
        no_prompt=len(found.unmade),
        no_prompt_rows=_unmade_rows(prepared, found),
    )


def _unmade_rows(prepared: Prepared, found: TokenCount) -> tuple[dict[str, Any], ...]:
    """The first rows of which no prompt can be made, and why."""
    named = dict(list(found.unmade.items())[:MOST_NAMED])
    queries = prepared.query_list.queries(list(named))
    return tuple(
        {"query": queries[prompt_key], "detail": why} for prompt_key, why in named.items() if prompt_key in queries
    )


def foresee(prepared: Prepared, found: TokenCount, count: int | None = None) -> TimeEstimate | None:
    """How long a run would take, by this machine's earlier ones; None without one that asked this model.

    found: the prompts that are to generate. count: how many of them are asked; all unless given.
    """
    question, every = prepared.question, prepared.plan.counts.to_generate
    assert question is not None
    if isinstance(question.spec.engine, OpenAIBatchSpec):
        return None  # it takes what the server likes
    setting, reports = engine_setting(question), run_reports(prepared.store)
    chosen = every if count is None else min(count, every)
    runs = read_chunks(prepared.store, setting, RUNS, chosen)
    speed = Speed.of(runs, LoadTime.of(load_seconds(reports, question.identity.label)), engine_room(question))
    if speed is None:  # chunks of older programs told nothing
        seconds = seconds_of(reports, question.identity.label, chosen, alone=True)
        return None if seconds is None else TimeEstimate(seconds, None, None, 0)
    lengths = prepared.plan.answer_lengths(question.fingerprint)
    if lengths is None:  # of another prompt: as long as its answers were
        chunks = [chunk for run in runs for chunk in run]
        mean = sum(chunk.output_tokens for chunk in chunks) / sum(chunk.rows for chunk in chunks)
        lengths = AnswerLengths(every * mean, 0.0)
    computed, share = found.tokens_of(every) * (1 - (found.saving or 0.0)), chosen / every
    return speed.estimate(Work(chosen, computed * share, lengths.tokens * share, lengths.off * share))


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
