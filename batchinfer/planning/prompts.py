"""Rows to prompts, as the model reads them, with the continuations that are to be scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from batchinfer.core.records import Continuation, Message, Prompt
from batchinfer.engines.adapter import scoring_fault
from batchinfer.engines.choices import ChoicesCollide, length
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import counted
from batchinfer.job import reader
from batchinfer.job.reader import Job
from batchinfer.planning.question import Question

SHORT = 10_000  # characters: a prompt of which nobody need ask whether it is far too long


@dataclass(frozen=True, slots=True)
class FilledPrompt:
    """A row's prompt before it is tokenised.

    prompt_key: what its answer is known by.
    messages: the template, filled in.
    scored: the text whose likelihood is asked for; None where none is.
    """

    prompt_key: bytes
    messages: tuple[Message, ...]
    scored: str | None = None

    @property
    def size(self) -> int:
        """Characters of its messages."""
        return sum(len(content) for _, content in self.messages)

    def beginning(self, most: int) -> FilledPrompt:
        """The same with only so many characters of its last message."""
        *before, (role, content) = self.messages
        return replace(self, messages=(*before, (role, content[:most])))


class PromptMaker:
    """Makes the prompts of a question for the model whose tokenizer it has.

    task: what an engine is to do with each.
    scoring: how choices are scored; None in a job without choices.
    """

    def __init__(self, job: Job, question: Question, tokenizer: Tokenizer) -> None:
        """Raises SpecError for choices that are the same to the model, or an adapter with which nothing whole can be scored.

        ModelError if it cannot be asked this question.
        """
        self._question, self._tokenizer = question, tokenizer
        self._job = job
        try:
            with reader.placing(job):
                self.scoring = question.scoring(tokenizer)
        except ChoicesCollide as exc:
            raise reader.faulty(job, [(("output", "choices"), str(exc))]) from exc
        self.task = question.task(self.scoring)
        if (
            self.task.score_continuations
            and self.task.adapter is not None
            and (fault := scoring_fault(self.task.adapter))
        ):
            raise reader.faulty(job, [((*job.model_at, "adapter"), fault)])

    @property
    def is_exact(self) -> bool:
        """Whether its tokens are the model's, and not guessed."""
        return self._tokenizer.is_known

    def fill(self, prompt_key: bytes, values: Mapping[str, Any]) -> FilledPrompt:
        """values: of the template's columns. Raises TemplateFault for a row that does not fit, SpecError where none would."""
        scored = self._question.scored
        with reader.placing(self._job):
            messages = self._question.template.messages(values)
            return FilledPrompt(prompt_key, messages, None if scored is None else scored.of(values))

    def text(self, filled: FilledPrompt) -> str:
        """The prompt as one text, as the model sees it."""
        return self._tokenizer.text(filled.messages)

    def is_beyond(self, filled: FilledPrompt, most: int) -> bool:
        """Whether a prompt is so long that it need not be tokenised to see that it has more tokens than that."""
        return self._tokenizer.is_beyond(self.text(filled), most) if filled.size > SHORT else False

    def prompts(self, rows: Sequence[FilledPrompt]) -> list[Prompt]:
        """The prompts of some rows."""
        encoded = self._tokenizer.encode([self.text(row) for row in rows], chat=self._question.chat)
        continuations = self._continuations(rows)
        return [
            Prompt(row.prompt_key, row.messages, tuple(ids), scored)
            for row, ids, scored in zip(rows, encoded, continuations, strict=True)
        ]

    def _continuations(self, rows: Sequence[FilledPrompt]) -> list[tuple[Continuation, ...]]:
        """What is to be scored of each of some rows."""
        if self._question.scored is None:
            return [self.scoring.continuations if self.scoring else ()] * len(rows)
        texts = [row.scored or "" for row in rows]
        tokens = self._tokenizer.in_place(texts, chat=self._question.chat)
        normalize = self._question.spec.output.normalize
        return [(Continuation(ids, length(text, ids, normalize)),) for text, ids in zip(texts, tokens, strict=True)]


def too_long(prompt: Prompt, max_len: int) -> str | None:
    """Why a prompt does not fit the model's window; None if it does."""
    scored = max((len(continuation.token_ids) for continuation in prompt.continuations), default=0)
    if len(prompt.token_ids) + scored < max_len:
        return None
    room = f"the {counted(scored, 'token')} that are to be scored" if scored else "an answer"
    return f"The prompt has {len(prompt.token_ids)} tokens; the model's window of {max_len} leaves no room for {room}."
