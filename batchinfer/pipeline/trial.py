"""A few prompts, shown and answered, nothing stored: for prompt engineering."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from batchinfer.core.columns import query_text
from batchinfer.core.home import JobData
from batchinfer.core.records import Failure, Generation, Info, Prediction, Prompt
from batchinfer.engines import models
from batchinfer.engines.protocol import Engine, Task
from batchinfer.engines.start import engine_for
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import InputError, UsageError
from batchinfer.job.reader import Job
from batchinfer.pipeline.wanted import TriedRow, Wanted, rows_of
from batchinfer.planning import question as questions
from batchinfer.planning.loadable import check_loadable
from batchinfer.planning.prompts import PromptMaker
from batchinfer.planning.question import Question
from batchinfer.prompting.template import TemplateFault


@dataclass(frozen=True, slots=True)
class Trial:
    """One prompt that was tried.

    job: its name.
    query: the row's key; None for values that a person gave.
    prompt: the whole text, as the model sees it.
    prompt_tokens: its length.
    generation: None if the engine failed on it.
    result: the prediction, or why there is none.
    """

    job: str
    query: dict[str, Any] | None
    prompt: str
    prompt_tokens: int
    generation: Generation | None
    result: Prediction | Failure

    def to_json(self) -> dict[str, Any]:
        return {
            "job": self.job,
            "query": self.query,
            "prompt": self.prompt,
            "prompt_tokens": self.prompt_tokens,
            "text": self.generation.text if self.generation else None,
            "result": self.result.to_json(),
        }


@dataclass(frozen=True, slots=True)
class _RenderedRow:
    """A row with its prompt.

    row: the row.
    prompt: as the model gets it.
    text: of the whole prompt.
    """

    row: TriedRow
    prompt: Prompt
    text: str


def try_rows(
    job: Job,
    data: JobData,
    wanted: Wanted,
    *,
    shots: int | None,
    info: Info,
    show: Callable[[str, int], None],
    engine: Engine | None = None,
) -> list[Trial]:
    """Renders the prompts of some rows, hands each to `show`, and asks the model, which is loaded once.

    Raises UsageError, NotFound, InputError or ModelError.
    """
    if job.spec.prompt is None:
        raise UsageError(f"The job {job.name} has no prompt to try: it has only imported answers.")
    data.check_owner(job.path)
    question = questions.make(job, data, shots=shots)
    rows = rows_of(job, data, question, wanted)
    if engine is None:
        check_loadable(job, data, question, info)
    source = models.weights(question.identity, data, info)
    tokenizer = Tokenizer(source, question.identity.revision, question.prompt.chat_template_kwargs)
    maker = PromptMaker(job, question, tokenizer)
    rendered_rows = [_rendered(number, row, maker) for number, row in enumerate(rows)]
    for each in rendered_rows:
        show(each.text, len(each.prompt.token_ids))
    if engine is not None:
        return _ask(job.name, engine, question, rendered_rows, maker.task)
    with engine_for(job, data, question.engine_config(source), info, at_once=True) as started:
        return _ask(job.name, started, question, rendered_rows, maker.task)


def _rendered(number: int, row: TriedRow, maker: PromptMaker) -> _RenderedRow:
    try:
        filled = maker.fill(number.to_bytes(16), row.values)
    except TemplateFault as exc:
        raise InputError(f"With {'these values' if row.query is None else query_text(row.query)} {exc}") from exc
    return _RenderedRow(row, maker.prompts([filled])[0], maker.text(filled))


def _ask(
    job: str, engine: Engine, question: Question, rendered_rows: Sequence[_RenderedRow], task: Task
) -> list[Trial]:
    engine.wait_ready()
    answers = {answer.prompt_key: answer for answer in engine.generate(task, [each.prompt for each in rendered_rows])}
    return [_trial(job, question, each, answers[each.prompt.prompt_key]) for each in rendered_rows]


def _trial(job: str, question: Question, rendered: _RenderedRow, answer: Generation | Failure) -> Trial:
    tokens, query = len(rendered.prompt.token_ids), rendered.row.query
    if isinstance(answer, Failure):
        return Trial(job, query, rendered.text, tokens, None, answer)
    return Trial(job, query, rendered.text, tokens, answer, question.parser(answer, rendered.row.values))
