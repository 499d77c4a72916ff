"""Asks the model of a job for what the cache lacks; or its two models, one after the other."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from batchinfer.cache.questions import ask_next
from batchinfer.engines import models
from batchinfer.engines.protocol import Engine
from batchinfer.engines.start import engine_for
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import BatchinferError
from batchinfer.job.reader import Job
from batchinfer.pipeline.budget import Budget
from batchinfer.pipeline.generate import Generator
from batchinfer.pipeline.progress import Console
from batchinfer.pipeline.record import RunRecord
from batchinfer.pipeline.stop import Stop
from batchinfer.planning.cascade import Cascade, Stage
from batchinfer.planning.estimate import foresee
from batchinfer.planning.prepare import Options, Prepared
from batchinfer.planning.prompts import PromptMaker
from batchinfer.planning.question import Question
from batchinfer.planning.tokens import count_tokens

FEW_WINDOWS = 4  # of prompts that tell how long a run will take, while it begins


@dataclass(frozen=True, slots=True)
class _LoadedModel:
    """A model that can be asked.

    engine: that has it.
    maker: of its prompts.
    max_len: tokens that its window has room for.
    """

    engine: Engine
    maker: PromptMaker
    max_len: int


class Asking:
    """The part of a run in which models are asked.

    engine: one that is already loaded and answers for any of them, or None to start the job's own.
    """

    def __init__(
        self,
        prepared: Prepared,
        options: Options,
        console: Console,
        stop: Stop,
        record: RunRecord,
        engine: Engine | None,
    ) -> None:
        self._prepared, self._console, self._stop, self._record, self._engine = prepared, console, stop, record, engine
        self._left, self._spread = options.limit, options.spread
        self._budget = (
            None if options.budget is None else Budget.of(prepared.job, options.budget, prepared.store.runs())
        )
        if self._budget is not None:
            self._budget.bound(stop, record.meter)

    def ask(self) -> None:
        """Asks the job's one model."""
        question = self._prepared.question
        assert question is not None
        with self._loaded(self._prepared.job, question) as model:
            self._pass(model, question)

    def ask_both(self, cascade: Cascade) -> None:
        """Asks the small model, then the large one, never both loaded; whose answer each row takes is settled in the end."""
        large = self._prepared.job.large
        assert large is not None
        if self._ask_stages(cascade, self._prepared.job, cascade.small, (Stage.SMALL,)):
            ask_next(self._prepared.store, self._record.run_id, cascade.large.fingerprint, cascade.large.parts)
            self._ask_stages(cascade, large, cascade.large, (Stage.SAMPLE, Stage.REST))
        if self._stop.reason is None and self._left is None:
            self._record.turn(cascade.settle)

    def _ask_stages(self, cascade: Cascade, job: Job, question: Question, stages: tuple[Stage, ...]) -> bool:
        """Asks one of two models what some stages ask; whether all of that was done."""
        with contextlib.ExitStack() as stack:
            model = None
            for stage in stages:
                todo = self._turn(cascade, stage)
                if stage is Stage.REST:
                    self._console.info(str(cascade.published()))
                if not todo:
                    continue
                if self._left == 0:
                    return False
                model = model or stack.enter_context(self._loaded(job, question))
                self._pass(model, question)
                if self._stop.reason is not None or self._turn(cascade, stage):
                    return False
        return True

    def _turn(self, cascade: Cascade, stage: Stage) -> int:
        """How many prompts a stage has to ask now."""
        self._record.turn(lambda run_id: cascade.turn_to(stage, run_id))
        return self._prepared.plan.counts.to_generate

    @contextlib.contextmanager
    def _loaded(self, job: Job, question: Question) -> Iterator[_LoadedModel]:
        data, info = self._prepared.data, self._console.info
        if self._budget is not None:
            self._budget.check(self._record.meter)
        source = models.weights(question.identity, data, info)
        began = time.monotonic()
        own = (
            engine_for(job, data, question.engine_config(source), info, self._stop.check, at_once=self._spread)
            if self._engine is None
            else contextlib.nullcontext(self._engine)
        )
        with self._record.meter.until_released(), own as ready:
            self._record.meter.hold(ready.devices, question.identity.label)
            progress = self._record.progress
            info("Looking at the server ..." if ready.devices.kind == "server" else "Loading the model ...")
            tokenizer = Tokenizer(source, question.identity.revision, question.prompt.chat_template_kwargs)
            maker = PromptMaker(job, question, tokenizer)
            self._foresee(tokenizer)
            loaded = ready.wait_ready()
            self._record.meter.hold(ready.devices, question.identity.label)  # on a cluster more have a place by now
            self._record.loaded(loaded)
            progress.waiting_seconds = ready.waited if self._engine is None else 0.0
            seconds = progress.load_seconds = time.monotonic() - began - progress.waiting_seconds
            info(f"{loaded.description}, ready after {seconds:.0f} s.")
            yield _LoadedModel(ready, maker, loaded.max_model_len)

    def _foresee(self, tokenizer: Tokenizer) -> None:
        """While the model loads: how long the run will take, to be told beside how long it took.

        Whatever goes wrong in it does not matter: the run says it, or never meets it.
        """
        question, job = self._prepared.question, self._prepared.job
        if self._prepared.cascade is not None or question is None:
            return
        with contextlib.suppress(BatchinferError):
            maker = PromptMaker(job, question.with_template(question.prompt.template), tokenizer)
            found = count_tokens(self._prepared, maker, None, exact_up_to=0, windows=FEW_WINDOWS)
            self._record.expected(foresee(self._prepared, found, self._left))

    def _pass(self, model: _LoadedModel, question: Question) -> None:
        """Asks what the plan has now."""
        prepared, progress = replace(self._prepared, question=question), self._record.progress
        prepared.plan.longest_first(question.fingerprint)
        generator = Generator(
            prepared, self._record.run_id, self._stop, progress, self._left, used=self._record.used, spread=self._spread
        )
        progress.nodes = model.engine.nodes
        cached = prepared.plan.counts.cached

        def show() -> None:
            self._record.meter.hold(model.engine.devices, question.identity.label)  # those of a cluster come and go
            self._console.progress(progress, cached)

        generator.run(model.engine, model.maker, model.max_len, show)
        if self._left is not None:
            self._left -= progress.done
