"""One prompt, shown and asked, nothing stored: how people engineer a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from batchinfer.core.columns import Column, typed
from batchinfer.core.home import JobData
from batchinfer.core.records import Failure, Generation, Prediction, Prompt
from batchinfer.engines import models
from batchinfer.engines.protocol import Engine, Task
from batchinfer.engines.start import engine_for
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import InputError, SpecError, UsageError
from batchinfer.inputs import files
from batchinfer.job.reader import Job
from batchinfer.planning import question
from batchinfer.planning.question import Question
from batchinfer.prompting.template import TemplateFault


@dataclass(frozen=True, slots=True)
class Trial:
    """What was asked and what came back. prompt: the whole text as the model sees it."""

    prompt: str
    prompt_tokens: int
    generation: Generation | None
    result: Prediction | Failure


def try_prompt(
    job: Job,
    data: JobData,
    texts: Mapping[str, str],
    *,
    shots: int | None,
    say: Callable[[str], None],
    shown: Callable[[str, int], None],
    engine: Engine | None = None,
) -> Trial:
    """Renders the prompt for a row given as texts, hands it to `shown`, asks the model."""
    if job.spec.prompt is None:
        raise UsageError(f"The job {job.name} has no prompt to try: it lives by imports.")
    data.prepare(job.path)
    asked = question.make(job, data, shots=shots)
    row = {name: typed(texts[name], column) for name, column in _columns(job, data, asked, texts).items()}
    try:
        messages = asked.template.messages(row)
    except TemplateFault as exc:
        raise InputError(f"With these values {exc}") from exc
    source = models.weights(asked.identity, data, say)
    tokenizer = Tokenizer(source, asked.identity.revision, asked.prompt.chat_template_kwargs)
    text = tokenizer.text(messages)
    ids = tokenizer.encode([text], chat=asked.chat)[0]
    shown(text, len(ids))
    task = asked.task(tokenizer)
    if engine is not None:
        return _ask(engine, asked, row, Prompt(b"\0" * 16, messages, tuple(ids)), text, task)
    with engine_for(job, data, asked.engine_config(source), say) as started:
        return _ask(started, asked, row, Prompt(b"\0" * 16, messages, tuple(ids)), text, task)


def _ask(engine: Engine, asked: Question, row: Mapping[str, Any], prompt: Prompt, text: str, task: Task) -> Trial:
    engine.wait_ready()
    [answer] = engine.generate(task, [prompt])
    if isinstance(answer, Failure):
        return Trial(text, len(prompt.token_ids), None, answer)
    return Trial(text, len(prompt.token_ids), answer, asked.parser(answer, row))


def _columns(job: Job, data: JobData, asked: Question, texts: Mapping[str, str]) -> dict[str, Column]:
    """The template's columns with the kinds that the list has, or text where there is no list."""
    missing = [name for name in asked.template.columns if name not in texts]
    if missing:
        raise UsageError(f"The template uses {', '.join(missing)}: say {missing[0]}=VALUE.")
    unknown = [name for name in texts if name not in asked.template.columns]
    if unknown:
        raise UsageError(f"The template does not use {unknown[0]}; it uses {', '.join(asked.template.columns)}.")
    try:
        kinds = files.list_columns(job, data, used=asked.template.columns)[0].kinds
        return {name: Column(name, kinds[name]) for name in asked.template.columns}
    except (InputError, SpecError):
        return {name: Column(name, "string") for name in asked.template.columns}
