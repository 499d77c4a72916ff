"""What every engine has in common that asks a server: to know that it has the job's model, and to wait while it is away."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Self

from batchinfer.core.cost import Devices
from batchinfer.core.records import Info
from batchinfer.engines.chat_form import SECONDS
from batchinfer.engines.dialects import ChatDialect, Dialect, TokenDialect, needs_vllm
from batchinfer.engines.flow import RequestFlow
from batchinfer.engines.grammars import follows_xgrammar
from batchinfer.engines.held_probe import ASKED, Held, find_held, probe_task
from batchinfer.engines.protocol import EngineConfig, EngineInfo, NodeWork, Task
from batchinfer.engines.served_model import (
    AskedModel,
    ServedModel,
    check_batches,
    find_name,
    find_served,
    key_told,
    no_api,
)
from batchinfer.engines.server_api import Away, NoEntry, ServerApi, ServerFault
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.engines.window import window_of
from batchinfer.errors import CutShort, ModelError, UsageError
from batchinfer.job.engine_spec import MOST_IN_FLIGHT, OpenAIBatchSpec, ServerSpec
from batchinfer.job.reader import Job

LISTEN_SECONDS = 1.0
UNBOUNDED = 1 << 30  # tokens, where nobody tells how long a window is


class OtherModel(CutShort):
    """The server has another model by now, or other settings: what it answers is not this model's."""


@dataclass(frozen=True, slots=True)
class EngineClock:
    """Time as the engine sees it.

    now: seconds of any clock.
    sleep: waits so many of them.
    """

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class ServerEngine:
    """All of a `protocol.Engine` but how it answers prompts, which each kind adds.

    devices: the server, which the run has for itself as far as anybody knows.
    nodes: none; where it runs is its own business.
    waited: seconds for which it was away before the first row.
    """

    devices = Devices("server", 1)
    nodes: Mapping[str, NodeWork] = MappingProxyType({})
    waited = 0.0

    def __init__(
        self, api: ServerApi, job: Job, spec: ServerSpec, config: EngineConfig, *, most: int = MOST_IN_FLIGHT,
        info: Info = lambda _: None, meanwhile: Callable[[], object] = lambda: None, clock: EngineClock | None = None,
    ) -> None:  # fmt: skip
        """most: requests at a time. meanwhile: called while the server is waited for; what it raises ends the wait."""
        self._api, self._job, self._server, self._config = api, job, spec, config
        self._info, self._meanwhile, self._clock = info, meanwhile, clock or EngineClock()
        self._flow, self._most = RequestFlow(most, random.Random()), most  # noqa: S311 - it spreads load, and guards nothing
        self._away: Away | None = None  # why nothing is sent, until the server was looked at again
        self._is_told = False  # whether it was said that it is away
        self._heard = self._clock.now()  # when it last did its work
        self._tokenizer: Tokenizer | None = None
        self._served: ServedModel | None = None
        self._held = Held()

    def start(self) -> None:
        """Nothing: the server is there, or will be."""

    def wait_ready(self) -> EngineInfo:
        lost: float | None = None  # when it was first found to be away
        while self._served is None:
            if self._away is not None and self._clock.now() < self._flow.until:
                self._wait()
                continue
            try:
                self._begin()
            except Away as exc:
                lost = self._clock.now() if lost is None else lost
                self._lose(exc)
                self._wait()
        self.waited = 0.0 if lost is None else self._clock.now() - lost
        self._find_again()
        served, window = self._served, self._served.max_model_len or self._own_window()
        kind = "vLLM's server" if served.takes_tokens else "The server"
        description = f"{kind} at {self._api.base_url}"
        checked, unshown = served.checked + self._held.checked, served.unshown + self._held.unshown
        return EngineInfo(window, self._most, description, checked=checked, unshown=unshown)

    def _own_window(self) -> int:
        return window_of(self._config.options, self._config.model, self._config.revision) or UNBOUNDED

    def check(self, task: Task) -> None:
        """What would fail before the first prompt of a task. Raises ModelError, or Away where nobody can tell now."""
        self._begin()
        self._dialect(task)

    def _begin(self) -> None:
        """Looks at the server before the first row; later looks leave out the form, of which an answer that is drawn tells.

        Raises what `_look` does.
        """
        served = self._look()
        self._held = self._look_at_form(served)
        self._served = served

    def _look(self) -> ServedModel:
        """What the server has. Raises Away, or ModelError for another model than the job's, or for what is no such API."""
        self._tokenizer = self._tokenizer or Tokenizer(self._config.model, self._config.revision, {})
        assert self._job.spec.model is not None
        asked = AskedModel(self._job.spec.model.id, self._config)
        try:
            return find_served(self._api, self._server, asked, self._tokenizer)
        except Away as exc:
            if exc.is_other and self._served is None:
                raise no_api(self._api, exc) from exc
            raise

    def _look_at_form(self, served: ServedModel) -> Held:
        """Whether it holds answers to the form that the job asks for, if it asks for one."""
        constraint = self._job.spec.output.constraint
        if constraint is None:
            return Held()
        kind, _ = constraint
        dialect = self._dialect_at(served, probe_task(kind, self._job.spec.sampling.model_dump()))
        with key_told(self._api, self._server):
            return find_held(self._api, dialect, kind, self._tokens_of(ASKED) if served.takes_tokens else ())

    def _tokens_of(self, text: str) -> tuple[int, ...]:
        """As the job's own prompts are written: behind a turn that is left open some servers let a model think before its form."""
        prompt, tokenizer = self._job.spec.prompt, self._tokenizer
        assert tokenizer is not None
        if prompt is not None and prompt.format == "chat":
            return tuple(tokenizer.turn_ids(text, prompt.chat_template_kwargs))
        return tuple(tokenizer.encode([text], chat=False)[0])

    def _dialect(self, task: Task) -> Dialect:
        """How a task is put to the server. Raises ModelError for one that it cannot do."""
        assert self._served is not None
        return self._dialect_at(self._served, task)

    def _dialect_at(self, served: ServedModel, task: Task) -> Dialect:
        prompt = self._job.spec.prompt
        assert self._tokenizer is not None
        if served.takes_tokens:
            return TokenDialect(task, served.name, follows_xgrammar=follows_xgrammar(self._config.options))
        if prompt is None or prompt.format != "chat":
            raise needs_vllm("Prompts with format: completion are")
        kwargs, chat = prompt.chat_template_kwargs, served.chat
        return ChatDialect(task, served.name, chat.longest, self._tokenizer, kwargs, takes_all=chat.takes_all)

    def _hear(self, *, soon: bool = True) -> None:
        """The server did some of its work. soon: whether it could do more at a time, since nothing had to wait long for it."""
        self._flow.answered(grows=soon)
        self._heard = self._clock.now()

    def _lose(self, fault: ServerFault, *, tells: bool = True) -> None:
        """The server is not there: nothing is sent until it was looked at again. tells: whether that is worth a word already."""
        if tells and not self._is_told:
            hours = self._server.patience.total_seconds() / 3600
            self._info(f"The server at {self._api.base_url} {fault.said}. Trying again, for up to {hours:g} h ...")
            self._is_told = True
        self._away = fault if isinstance(fault, Away) else Away(fault.said)
        self._flow.gone(self._clock.now(), self._away.wait)

    def _wait(self) -> None:
        """Waits a moment with nothing in flight; then, if it is time, looks whether the server is there again.

        Raises CutShort where patience is at its end, or where it came back with another model.
        """
        self._meanwhile()
        self._check_patience()
        now = self._clock.now()
        if now < self._flow.until:
            self._clock.sleep(min(self._flow.until - now, LISTEN_SECONDS))
        elif self._away is not None and self._served is not None:
            self._look_again(self._served)

    def _check_patience(self, more: float = 0.0) -> None:
        """more: seconds that are no reason to be impatient."""
        if self._clock.now() - self._heard > self._server.patience.total_seconds() + more:
            self._give_up()

    def _give_up(self) -> None:
        """Patience is at its end. Raises CutShort."""
        said = self._away.said if self._away else "has too much to do"
        raise CutShort(
            f"The server at {self._api.base_url} {said}, and answered nothing for as long as engine.patience allows."
        )

    def _look_again(self, before: ServedModel) -> None:
        try:
            found = self._look()
        except Away as exc:
            self._lose(exc)
        except ModelError as exc:
            kind = CutShort if isinstance(exc.__cause__, NoEntry) else OtherModel
            raise kind(f"The run cannot go on: {exc} Run it again to resume, once that is so.") from exc
        else:
            if not found.is_as(before):
                said = f"The server at {self._api.base_url} came back with other settings than it had ({' '.join(found.checked)})."
                raise OtherModel(said, fix="run the job again to resume, if it is the right one.")
            self._find_again()

    def _find_again(self) -> None:
        if self._is_told:
            self._info(f"The server at {self._api.base_url} answers again.")
        self._away, self._is_told = None, False

    def committed(self, keys: Iterable[bytes]) -> None:
        """Nothing is kept of what was asked."""

    def close(self) -> None:
        self._api.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def api_of(spec: ServerSpec, *, connections: int, stall_seconds: float = SECONDS) -> ServerApi:
    """The API that a job names. Raises UsageError where its key is missing, or is none."""
    key = None
    if spec.api_key_env is not None and not (key := os.environ.get(spec.api_key_env)):
        said = f"The environment has no {spec.api_key_env}, which is to hold the key of {spec.base_url}: export it."
        raise UsageError(said, field=("engine", "api_key_env"))
    if key is not None and not (key.isascii() and key.isprintable()):
        said = f"The variable {spec.api_key_env} has characters that no key can have, as a line's end at its end: copy the key again."
        raise UsageError(said, field=("engine", "api_key_env"))
    return ServerApi(spec.base_url, key, connections=connections, stall_seconds=stall_seconds)


def check_server(job: Job, spec: ServerSpec, config: EngineConfig, task: Task, info: Info) -> None:
    """What would fail in a run, known before. Says so where the server does not answer now: a run would wait for it.

    Raises UsageError or ModelError.
    """
    api = api_of(spec, connections=1)
    with ServerEngine(api, job, spec, config, info=info) as engine:
        try:
            engine.check(task)
            if isinstance(spec, OpenAIBatchSpec):
                check_batches(api)
        except Away as exc:
            hours = spec.patience.total_seconds() / 3600
            info(f"The server at {spec.base_url} {exc.said}: a run would wait for it, for up to {hours:g} h.")


def name_at_server(job: Job, spec: ServerSpec, config: EngineConfig) -> str:
    """What a server calls the job's model, by its list alone.

    Raises UsageError without its key, ModelError where it lists another model or is no such API, ConnectionError where it is away.
    """
    assert job.spec.model is not None
    api = api_of(spec, connections=1)
    try:
        return find_name(api, spec, AskedModel(job.spec.model.id, config))
    except Away as exc:
        raise ConnectionError(exc.said) from exc
    finally:
        api.close()
