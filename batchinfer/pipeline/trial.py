"""One prompt, shown and answered, nothing stored: for prompt engineering."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from batchinfer.core.columns import Column, typed
from batchinfer.core.home import JobData
from batchinfer.core.records import Failure, Generation, Info, Prediction, Prompt
from batchinfer.engines import models
from batchinfer.engines.protocol import Engine, Task
from batchinfer.engines.start import engine_for
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import InputError, SpecError, UsageError
from batchinfer.inputs import files
from batchinfer.job.reader import Job
from batchinfer.planning import question as questions
from batchinfer.planning.loadable import check_loadable, task_of
from batchinfer.planning.question import Question
from batchinfer.prompting.template import TemplateFault


@dataclass(frozen=True, slots=True)
class Trial:
    """One prompt that was tried.

    job: its name.
    prompt: the whole text, as the model sees it.
    prompt_tokens: its length.
    generation: None if the engine failed on it.
    result: the prediction, or why there is none.
    """

    job: str
    prompt: str
    prompt_tokens: int
    generation: Generation | None
    result: Prediction | Failure

    def to_json(self) -> dict[str, Any]:
        return {
            "job": self.job,
            "prompt": self.prompt,
            "prompt_tokens": self.prompt_tokens,
            "text": self.generation.text if self.generation else None,
            "result": self.result.to_json(),
        }


def try_prompt(
    job: Job,
    data: JobData,
    texts: Mapping[str, str],
    *,
    shots: int | None,
    info: Info,
    show: Callable[[str, int], None],
    engine: Engine | None = None,
) -> Trial:
    """Renders the prompt for a row given as texts, hands it to `show`, asks the model."""
    if job.spec.prompt is None:
        raise UsageError(f"The job {job.name} has no prompt to try: it has only imported answers.")
    data.check_owner(job.path)
    question = questions.make(job, data, shots=shots)
    row = {name: typed(texts[name], column) for name, column in _columns(job, data, question, texts).items()}
    try:
        messages = question.template.messages(row)
    except TemplateFault as exc:
        raise InputError(f"With these values {exc}") from exc
    if engine is None:
        check_loadable(job, data, question)
    source = models.weights(question.identity, data, info)
    tokenizer = Tokenizer(source, question.identity.revision, question.prompt.chat_template_kwargs)
    text = tokenizer.text(messages)
    ids = tokenizer.encode([text], chat=question.chat)[0]
    show(text, len(ids))
    task = task_of(job, question, tokenizer)
    if engine is not None:
        return _ask(job.name, engine, question, row, Prompt(b"\0" * 16, messages, tuple(ids)), text, task)
    with engine_for(job, data, question.engine_config(source), info) as started:
        return _ask(job.name, started, question, row, Prompt(b"\0" * 16, messages, tuple(ids)), text, task)


def _ask(
    job: str, engine: Engine, question: Question, row: Mapping[str, Any], prompt: Prompt, text: str, task: Task
) -> Trial:
    engine.wait_ready()
    [answer] = engine.generate(task, [prompt])
    if isinstance(answer, Failure):
        return Trial(job, text, len(prompt.token_ids), None, answer)
    return Trial(job, text, len(prompt.token_ids), answer, question.parser(answer, row))


def _columns(job: Job, data: JobData, question: Question, texts: Mapping[str, str]) -> dict[str, Column]:
    """The template's columns with the kinds that the list has, or text where there is no list."""
    missing = [name for name in question.template.columns if name not in texts]
    if missing:
        raise UsageError(f"The template uses {', '.join(missing)}: add {missing[0]}=VALUE.")
    unknown = [name for name in texts if name not in question.template.columns]
    if unknown:
        raise UsageError(f"The template does not use {unknown[0]}; it uses {', '.join(question.template.columns)}.")
    try:
        kinds = files.list_columns(job, data, used=question.template.columns)[0].kinds
        return {name: Column(name, kinds[name]) for name in question.template.columns}
    except (InputError, SpecError):
        return {name: Column(name, "string") for name in question.template.columns}
