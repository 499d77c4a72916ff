"""Arms asked through the job's cache: each an ordinary plan, those of one model by one loaded engine, in turns."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from batchinfer.cache.schema import RunStatus
from batchinfer.core.cost import Devices
from batchinfer.core.home import JobData
from batchinfer.engines import models
from batchinfer.engines.protocol import Engine, EngineConfig, EngineInfo
from batchinfer.engines.start import engine_for
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.evaluate.arms import Arm
from batchinfer.pipeline.generate import Generator
from batchinfer.pipeline.meter import cost_of
from batchinfer.pipeline.progress import Console, Progress
from batchinfer.pipeline.stop import Stop
from batchinfer.planning.loadable import check_loadable
from batchinfer.planning.prepare import Options, Prepared, prepare, prepare_to_write
from batchinfer.planning.prompts import PromptMaker
from batchinfer.planning.question import Question

TURN = 64
NO_DEVICES = Devices("cpu", 0)  # before anything is asked


@dataclass(slots=True)
class AskedArm:
    """An arm beside the cache.

    arm: the arm.
    prepared: its rows, compared with the cache.
    progress: what asking it came to so far.
    seconds: of generation so far.
    run_id: the number that its answers are stored with; None before it is asked.
    devices: of the engine that answers.
    engine: what answers, once it is loaded.
    loading: seconds that that took.
    own_loading: those of them that count as the arm's, where several have one engine.
    """

    arm: Arm
    prepared: Prepared
    progress: Progress = field(default_factory=Progress)
    seconds: float = 0.0
    run_id: int | None = None
    devices: Devices = NO_DEVICES
    engine: EngineInfo | None = None
    loading: float = 0.0
    own_loading: float = 0.0

    @property
    def question(self) -> Question:
        assert self.prepared.question is not None
        return self.prepared.question

    @property
    def remaining(self) -> int:
        """Prompts that are still to ask."""
        return self.prepared.plan.counts.to_generate - self.progress.done


@dataclass(frozen=True, slots=True)
class Session:
    """What all asking of one comparison or audit shares.

    data: the job's part of the data folder.
    number: of the comparison, or the version or candidate that is audited.
    console: whom to tell.
    stop: whether it was asked to end.
    engine: one that is already loaded, or None to start each model's.
    turn: rows of an arm that are asked before it is the next one's turn.
    status: what its runs are recorded as.
    """

    data: JobData
    number: int | str
    console: Console
    stop: Stop
    engine: Engine | None = None
    turn: int = TURN
    status: RunStatus = RunStatus.EVAL


@contextlib.contextmanager
def beside_cache(arm: Arm, data: JobData, rows: Path, console: Console, *, writes: bool) -> Iterator[AskedArm]:
    """An arm's rows compared with the cache, whatever people said of them. writes: whether it is to be asked.

    It is asked to the end however many rows fail: that they do is what was to be found out.
    """
    opened = prepare_to_write if writes else prepare
    job = replace(arm.job, spec=arm.job.spec.model_copy(update={"on_errors": "continue"}))
    with opened(job, data, Options(input=rows, despite_people=True), console.info) as prepared:
        yield AskedArm(arm, prepared)


def ask_arms(asked: Sequence[AskedArm], session: Session) -> None:
    """Asks what the cache lacks; loads nothing if nothing is. Raises Stopped if it was asked to end."""
    overall = _Overall(asked, session.console)
    by_engine: dict[str, list[AskedArm]] = {}
    for each in asked:
        if each.remaining:
            by_engine.setdefault(repr(_config(each, "")), []).append(each)
    for alike in by_engine.values():
        first = alike[0]
        models.remember(first.arm.job, session.data, first.question.identity)
        if session.engine is None:
            check_loadable(first.arm.job, session.data, first.question, session.console.info)
        _ask_model(alike, session, overall)


def _config(asked: AskedArm, source: str) -> EngineConfig:
    return asked.question.engine_config(source or asked.question.identity.source)


def _ask_model(alike: Sequence[AskedArm], session: Session, overall: _Overall) -> None:
    """Asks arms that one engine answers, in turns, so that none has the better hours of the machine."""
    first, info = alike[0], session.console.info
    source = models.weights(first.question.identity, session.data, info)
    config = _config(first, source)
    own = (
        engine_for(first.arm.job, session.data, config, info, session.stop.check, at_once=True)
        if session.engine is None
        else contextlib.nullcontext(session.engine)
    )
    with own as ready:
        info("Looking at the server ..." if ready.devices.kind == "server" else "Loading the model ...")
        began = time.monotonic()
        tokenizer = Tokenizer(source, first.question.identity.revision, first.question.prompt.chat_template_kwargs)
        makers = {each.arm.name: PromptMaker(each.arm.job, each.question, tokenizer) for each in alike}
        loaded = ready.wait_ready()
        info(f"{loaded.description}, ready after {time.monotonic() - began:.0f} s.")
        loading = time.monotonic() - began
        overall.begin(loading)
        with contextlib.ExitStack() as stack:
            for each in alike:
                each.engine, each.loading = loaded, loading
                stack.enter_context(_recorded(each, session, ready.devices, loading / len(alike)))
            while waiting := [each for each in alike if each.remaining]:
                for each in waiting:
                    _take_turn(each, session, ready, makers[each.arm.name], loaded.max_model_len, overall)


@contextlib.contextmanager
def _recorded(asked: AskedArm, session: Session, devices: Devices, loading: float) -> Iterator[None]:
    """Records an arm among the runs: answers are stored with the number of what made them, and erased by what it asked.

    devices: that the engine holds. loading: seconds of loading it that are the arm's.
    """
    store, question = asked.prepared.store, asked.question
    asked.run_id = store.start_run(question.fingerprint, question.parts, session.status)
    asked.devices, asked.own_loading = devices, loading
    try:
        yield
    finally:
        store.finish_run(asked.run_id, session.status, _used(asked, session))


def _used(asked: AskedArm, session: Session) -> dict[str, Any]:
    """What an arm is, and what it used and made so far, as the record of its run has it."""
    about: dict[str, Any] = {"job": session.data.name, str(session.status): session.number, "arm": asked.arm.name}
    about |= {"model": asked.question.identity.label, "engine_load_seconds": round(asked.loading, 3)}
    made = {"generated": asked.progress.generated, "failed": asked.progress.failed}
    price, seconds = asked.arm.job.spec.cost, (asked.own_loading + asked.seconds) * asked.devices.count
    cost = cost_of(asked.progress, asked.devices.kind, seconds, price.price if price else None)
    looked_at = {
        name: list(found) for name in ("checked", "unshown") if asked.engine and (found := getattr(asked.engine, name))
    }
    return about | made | looked_at | {"cost": cost.to_json()}


def _take_turn(
    asked: AskedArm, session: Session, engine: Engine, maker: PromptMaker, max_len: int, overall: _Overall
) -> None:
    """Asks the next rows of one arm. Raises Stopped."""
    progress = asked.progress
    assert asked.run_id is not None
    used = partial(_used, asked, session)
    generator = Generator(asked.prepared, asked.run_id, session.stop, progress, session.turn, progress.done, used=used)
    try:
        generator.run(engine, maker, max_len, overall.show)
    finally:
        asked.seconds += progress.seconds
    if session.stop.reason is not None:
        raise session.stop.reason


class _Overall:
    """The progress of all arms together, as a person sees it."""

    def __init__(self, asked: Sequence[AskedArm], console: Console) -> None:
        self._asked, self._console = asked, console
        self._cached = sum(each.prepared.plan.counts.cached for each in asked)
        self._whole = Progress(todo=sum(each.remaining for each in asked))

    def begin(self, load_seconds: float) -> None:
        """An engine is loaded."""
        self._whole.load_seconds += load_seconds
        self._whole.started = self._whole.started or time.monotonic()

    def show(self) -> None:
        for name in ("generated", "failed", "prompt_tokens", "cached_tokens", "output_tokens"):
            setattr(self._whole, name, sum(getattr(each.progress, name) for each in self._asked))
        self._console.progress(self._whole, self._cached)
