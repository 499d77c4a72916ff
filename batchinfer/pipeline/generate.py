"""The long part of a run: planned rows → prompts → engine → parser → committed chunks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from batchinfer.cache.store import Store
from batchinfer.core.records import Answer, Failure, Generation, Message, Prediction, Prompt
from batchinfer.engines.protocol import Engine, Task
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import Stopped
from batchinfer.inputs.parquet import template_values
from batchinfer.inputs.query_list import Plan
from batchinfer.pipeline.progress import Progress
from batchinfer.pipeline.stop import Stop
from batchinfer.planning.question import Question
from batchinfer.prompting.template import TemplateFault

CHUNK = 256
CHUNK_SECONDS = 5.0
TOKENIZE = 32  # rows tokenised at a time


class Generating:
    """One pass over a plan's `todo`, or its first `limit`. replace: what is made may be in the cache already."""

    def __init__(
        self,
        plan: Plan,
        question: Question,
        store: Store,
        stop: Stop,
        run_id: int,
        tally: Progress,
        *,
        replace: bool,
        limit: int | None,
    ) -> None:
        self._plan, self._question, self._store, self._stop = plan, question, store, stop
        self._made, self._tally, self._replace, self._limit = question.made(run_id), tally, replace, limit
        self._underway: dict[bytes, dict[str, Any]] = {}  # key → row of the list
        self._answers: list[Answer] = []
        self._failures: list[tuple[Failure, Mapping[str, Any]]] = []
        self._committed = 0.0

    def run(self, engine: Engine, task: Task, tokenizer: Tokenizer, max_len: int, progress: Callable[[], None]) -> None:
        """Answers all that is to do, or until a stop is requested; commits as it goes.

        However it ends, the tally counts what was committed.
        """
        count = self._plan.counts.to_generate
        self._tally.started = self._committed = time.monotonic()
        self._tally.todo = count if self._limit is None else min(self._limit, count)
        self._stop.graceful = True
        progress()
        try:
            for result in engine.generate(task, self._prompts(tokenizer, max_len)):
                self._take(result)
                self._stop.requested()  # says so soon, if it is
                waiting = len(self._answers) + len(self._failures)
                if waiting >= CHUNK or time.monotonic() - self._committed > CHUNK_SECONDS:
                    self._commit()
                progress()
            self._commit()
        except Stopped:
            if self._stop.reason is None:  # the engine cannot be kept alive: the next run must not die of the same rows
                self._commit()
            raise
        finally:
            self._stop.graceful = False
            self._tally.ended = time.monotonic()
            self._tally.failures -= len(self._failures)  # what was not committed is not there
            self._tally.generated -= sum(isinstance(answer.result, Prediction) for answer in self._answers)

    def _prompts(self, tokenizer: Tokenizer, max_len: int) -> Iterator[Prompt]:
        """The prompts, made as the engine asks for them. Rows that give none become failures on the way."""
        rows = self._plan.todo(self._limit)
        while not self._stop.requested() and (batch := list(itertools.islice(rows, TOKENIZE))):
            filled = [(key, messages) for key, row in batch if (messages := self._fill(key, row)) is not None]
            encoded = tokenizer.encode([tokenizer.text(messages) for _, messages in filled], chat=self._question.chat)
            for (key, messages), ids in zip(filled, encoded, strict=True):
                if self._stop.requested():
                    return
                if len(ids) >= max_len:
                    detail = f"The prompt has {len(ids)} tokens; the model's window of {max_len} leaves no room for an answer."
                    self._take(Failure(key, "engine", "prompt_too_long", detail))
                else:
                    yield Prompt(key, messages, tuple(ids))

    def _fill(self, key: bytes, row: dict[str, Any]) -> tuple[Message, ...] | None:
        self._underway[key] = row
        try:
            return self._question.template.messages(self._values(row))
        except TemplateFault as exc:
            self._take(Failure(key, "engine", "template", f"For this row {exc}"))
            return None

    def _values(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return template_values(row, self._plan.source.kinds)

    def _take(self, result: Generation | Failure) -> None:
        tally = self._tally
        row = self._underway.pop(result.key or b"")
        read = self._question.parser(result, self._values(row)) if isinstance(result, Generation) else result
        if isinstance(result, Generation):
            self._answers.append(Answer(result, read))
            tally.prompt_tokens += result.prompt_tokens
            tally.cached_tokens += result.cached_tokens
            tally.output_tokens += result.output_tokens
        if isinstance(read, Failure):
            tally.failures += 1
            self._failures.append((read, self._plan.query_of(row)))
        else:
            tally.generated += 1
            if read.mass is not None:
                tally.masses.append(read.mass)

    def _commit(self) -> None:
        if self._answers or self._failures:
            self._store.commit(self._answers, self._failures, self._made, replace=self._replace)
        self._answers, self._failures = [], []
        self._committed = time.monotonic()
