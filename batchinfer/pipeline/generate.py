"""The long part of a run: planned rows → prompts → engine → parser → committed chunks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from batchinfer.cache.chunks import ChunkNote, ChunkTime
from batchinfer.core.memory import batch_bytes
from batchinfer.core.records import Answer, Failure, Generation, Prediction, Prompt
from batchinfer.engines.protocol import Engine
from batchinfer.errors import BatchinferError, Stopped
from batchinfer.pipeline.on_errors import stopped_early, too_many
from batchinfer.pipeline.progress import Progress
from batchinfer.pipeline.stop import Stop
from batchinfer.planning.prepare import Prepared
from batchinfer.planning.prompts import FilledPrompt, PromptMaker, too_long
from batchinfer.planning.speed import engine_setting
from batchinfer.prompting.template import TemplateFault

CHUNK = 256
CHUNK_SECONDS = 5.0
TOKENIZE = 32  # rows tokenised at a time
TOKENIZE_CHARACTERS = 1_000_000


class AwaitedRow(NamedTuple):
    """A row whose answer is awaited.

    query: its lookup key, for people.
    values: what the template was filled with.
    """

    query: Mapping[str, Any]
    values: Mapping[str, Any]


class Generator:
    """One pass over a plan's `todo`, or `limit` rows of it: asks, reads the answers, commits them chunk by chunk.

    progress: counts as it goes; however it ends, what was committed.
    """

    def __init__(
        self, prepared: Prepared, run_id: int, stop: Stop, progress: Progress, limit: int | None, start: int = 0,
        used: Callable[[], Mapping[str, Any]] = dict, *, spread: bool = False,
    ) -> None:  # fmt: skip
        """start: how many rows of `todo` are left out before the first. used: what the run used and made so far, for its record.

        spread: whether the rows of a limit are from all over the list.
        """
        assert prepared.question is not None  # a job without one has nothing to generate
        self._plan, self._list, self._store = prepared.plan, prepared.query_list, prepared.store
        self._question, self._replace = prepared.question, prepared.selection.replaces
        self._provenance = prepared.question.provenance(run_id)
        self._stop, self._progress, self._limit, self._start = stop, progress, limit, start
        self._used, self._setting = used, engine_setting(prepared.question)
        self._spread = spread
        self._job, limits = prepared.job.name, prepared.job.spec.on_errors
        self._limits = None if limits == "continue" else limits
        self._underway: dict[bytes, AwaitedRow] = {}
        self._answers: list[Answer] = []
        self._failures: list[tuple[Failure, Mapping[str, Any]]] = []
        self._committed, self._is_changing, self._size = 0.0, False, 0
        self._counted, self._measured = self._counts(), 0.0  # when the chunk began
        self._most = batch_bytes()  # asked once: it reads files
        self._settle: Callable[[Iterable[bytes]], None] = lambda _: None  # tells the engine what is committed
        self._early: Stopped | None = None  # why it stops before its end, as far as was known then

    def run(self, engine: Engine, maker: PromptMaker, max_len: int, show: Callable[[], None]) -> None:
        """Answers all that is to do, or until a stop is requested; commits as it goes.

        max_len: tokens that the model's window has room for. show: called whenever the progress changed.
        """
        count = self._plan.counts.to_generate - self._start
        self._progress.started = self._committed = self._measured = time.monotonic()
        self._progress.todo = count if self._limit is None else min(self._limit, count)
        self._stop.graceful, self._settle = True, engine.committed
        show()
        try:
            for result in engine.generate(maker.task, self._prompts(maker, max_len)):
                self._take(result)
                self._stop.requested()  # says so soon, if it is
                if self._is_chunk():
                    self._commit()
                show()
            self._commit()
            if self._early is not None and self._stop.reason is self._early:
                self._stop.reason = stopped_early(self._job, self._progress)
        # whatever ends the run: what is finished is kept, also so that the next one does not ask it
        except BaseException:
            self._rescue()
            raise
        finally:
            self._stop.graceful = False
            self._progress.ended = time.monotonic()
            self._progress.failed -= len(self._failures)  # what was not committed is not there
            self._progress.generated -= sum(isinstance(answer.result, Prediction) for answer in self._answers)

    def _prompts(self, maker: PromptMaker, max_len: int) -> Iterator[Prompt]:
        """The prompts, made as the engine asks for them. Rows that give none become failures on the way."""
        for batch in self._batches(maker, max_len):
            for prompt in maker.prompts(batch):
                if self._stop.requested():
                    return
                if (fault := too_long(prompt, max_len)) is not None:
                    self._take(Failure(prompt.prompt_key, "engine", "prompt_too_long", fault))
                else:
                    yield prompt

    def _batches(self, maker: PromptMaker, max_len: int) -> Iterator[list[FilledPrompt]]:
        """The prompts before they are tokenised, some at a time: few where they are long."""
        batch, size = list[FilledPrompt](), 0
        for prompt_key, row in self._rows():
            if self._stop.requested():
                return
            filled = self._fill(maker, prompt_key, row)
            if filled is not None and maker.is_beyond(filled, max_len):
                detail = f"The prompt has more tokens than the model's window of {max_len}."
                self._take(Failure(prompt_key, "engine", "prompt_too_long", detail))
            elif filled is not None:
                batch.append(filled)
                size += filled.size
            if len(batch) == TOKENIZE or size > TOKENIZE_CHARACTERS:
                yield batch
                batch, size = [], 0
        yield batch

    def _rows(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        if self._spread and self._limit is not None:
            return self._plan.spread(min(self._limit, self._plan.counts.to_generate))
        return self._plan.todo(self._limit, self._start)

    def _fill(self, maker: PromptMaker, prompt_key: bytes, row: dict[str, Any]) -> FilledPrompt | None:
        values = self._list.source.template_values(row)
        self._underway[prompt_key] = AwaitedRow(self._list.query_of(row), values)
        try:
            return maker.fill(prompt_key, values)
        except TemplateFault as exc:
            self._take(Failure(prompt_key, "engine", "template", f"For this row {exc}"))
            return None

    def _take(self, result: Generation | Failure) -> None:
        """Reads an answer, and counts it."""
        row = self._underway.pop(result.prompt_key or b"")
        read = self._question.parser(result, row.values) if isinstance(result, Generation) else result
        self._is_changing = True
        if isinstance(result, Generation):
            self._answers.append(Answer(result, read))
            self._size += 2 * len(result.text)
        if isinstance(read, Failure):
            self._failures.append((read, row.query))
            self._size += sum(len(value) for value in row.query.values() if isinstance(value, str))
        self._progress.count(result, read)
        self._is_changing = False
        self._stop_if_most_fail()

    def _stop_if_most_fail(self) -> None:
        if self._limits is None or self._early is not None or not too_many(self._limits, self._progress):
            return
        self._early = stopped_early(self._job, self._progress)
        self._stop.request(self._early, "Most rows fail: finishing what is in flight.")

    def _is_chunk(self) -> bool:
        """Whether it is time to commit."""
        waiting = len(self._answers) + len(self._failures)
        return waiting >= CHUNK or self._size > self._most or time.monotonic() - self._committed > CHUNK_SECONDS

    def _commit(self) -> None:
        results = list[Generation | Failure](failure for failure, _ in self._failures)
        results += [answer.generation for answer in self._answers]
        if self._answers or self._failures:
            self._is_changing = True
            self._store.commit(
                self._answers, self._failures, self._provenance, replace=self._replace, note=self._note()
            )
        self._answers, self._failures, self._is_changing, self._size = [], [], False, 0
        self._committed = time.monotonic()
        self._settle([result.prompt_key or b"" for result in results])

    def _note(self) -> ChunkNote:
        """What is recorded beside the answers that are committed now."""
        counted, ended = self._counts(), time.monotonic()
        rows, prompt, cached, output = (now - before for now, before in zip(counted, self._counted, strict=True))
        took = ChunkTime(rows, prompt, cached, output, ended - self._measured)
        self._counted, self._measured = counted, ended
        return ChunkNote(took, self._setting, self._used())

    def _counts(self) -> tuple[int, int, int, int]:
        """Rows and tokens so far, as a chunk has them."""
        progress = self._progress
        return progress.done, progress.prompt_tokens, progress.cached_tokens, progress.output_tokens

    def _rescue(self) -> None:
        """Commits what is finished, on the way out. What ended the run is reported, not that this failed, too."""
        if not self._is_changing:  # a signal may break off a commit that is in already
            with contextlib.suppress(BatchinferError):
                self._commit()
