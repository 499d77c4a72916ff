"""The engine `openai`: a server with an OpenAI-compatible API, asked row by row, as many at a time as it takes.

The run's own thread decides what is sent and when; other threads do nothing but wait for one reply each. A server that is
away is waited for, for hours if need be, and looked at again before it is asked on: another model may have taken its place.
"""

from __future__ import annotations

import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from batchinfer.core.cost import Devices
from batchinfer.core.records import Failure, Generation, Info, Prompt
from batchinfer.engines.dialects import ChatDialect, Dialect, TokenDialect, needs_vllm
from batchinfer.engines.flow import RequestFlow
from batchinfer.engines.grammars import follows_xgrammar
from batchinfer.engines.protocol import EngineConfig, EngineInfo, Task
from batchinfer.engines.replies import Asked, Replies
from batchinfer.engines.served_model import SECONDS, AskedModel, ServedModel, find_served, listed_models, no_api
from batchinfer.engines.server_api import Away, Broken, Refused, ServerApi, ServerFault
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.engines.window import window_of
from batchinfer.errors import ModelError, Stopped, UsageError
from batchinfer.job.engine_spec import MOST_IN_FLIGHT, OpenAISpec, ServerSpec
from batchinfer.job.reader import Job

LISTEN_SECONDS = 1.0
SUSPECT, MOST_STRIKES = 2, 4  # failed answers to one prompt: after so many it is asked alone, or not any more
UNBOUNDED = 1 << 30  # tokens, where nobody tells how long a window is


@dataclass(frozen=True, slots=True)
class EngineClock:
    """Time as the engine sees it. now: seconds of any clock. sleep: waits so many of them."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class OpenAIEngine:
    """Asks a server. It is a `protocol.Engine`."""

    def __init__(
        self, api: ServerApi, job: Job, spec: OpenAISpec, config: EngineConfig, *,
        info: Info = lambda _: None, meanwhile: Callable[[], object] = lambda: None, clock: EngineClock | None = None,
    ) -> None:  # fmt: skip
        """meanwhile: called while the server is away; what it raises ends the wait."""
        self._api, self._job, self._spec, self._config = api, job, spec, config
        self._info, self._meanwhile, self._clock = info, meanwhile, clock or EngineClock()
        self._most = MOST_IN_FLIGHT if spec.in_flight == "auto" else spec.in_flight
        self._flow = RequestFlow(self._most, random.Random())  # noqa: S311 - it spreads load, and guards nothing
        self._replies = Replies(api)
        self._again: deque[Asked] = deque()  # to be sent again, before any other
        self._suspects: deque[Asked] = deque()  # to be sent again, each alone
        self._away: Away | None = None  # why nothing is sent, until the server was looked at again
        self._heard = self._clock.now()  # when it last answered a prompt
        self._tokenizer: Tokenizer | None = None
        self._served: ServedModel | None = None

    @property
    def devices(self) -> Devices:
        return Devices("server", 1)

    def start(self) -> None:
        """Nothing: the server is there, or will be."""

    def wait_ready(self) -> EngineInfo:
        while self._served is None:
            if self._away is not None and self._clock.now() < self._flow.until:
                self._wait()
                continue
            try:
                self._served = self._look()
            except Away as exc:
                self._lose(exc)
                self._wait()
        self._find_again()
        window = self._served.max_model_len or self._own_window()
        kind = "vLLM's server" if self._served.takes_tokens else "The server"
        return EngineInfo(window, self._most, f"{kind} at {self._api.base_url}", self._served.checked)

    def _own_window(self) -> int:
        return window_of(self._config.options, self._config.model, self._config.revision) or UNBOUNDED

    def _look(self) -> ServedModel:
        """What the server has. Raises Away, or ModelError for another model than the job's, or for what is no such API."""
        self._tokenizer = self._tokenizer or Tokenizer(self._config.model, self._config.revision, {})
        assert self._job.spec.model is not None
        asked = AskedModel(self._job.spec.model.id, self._config)
        try:
            return find_served(self._api, self._spec, asked, self._tokenizer)
        except Away as exc:
            if exc.is_other and self._served is None:
                raise no_api(self._api) from exc
            raise

    def generate(self, task: Task, prompts: Iterable[Prompt]) -> Iterator[Generation | Failure]:
        self._again.clear()
        self._suspects.clear()
        self._replies.forget()
        self._flow.in_flight = 0
        dialect, waiting = self._dialect(task), iter(prompts)
        self._heard, is_read = self._clock.now(), False
        while True:
            is_read = self._feed(dialect, waiting, is_read=is_read)
            if is_read and not (self._flow.in_flight or self._again or self._suspects):
                return
            yield from self._listen()

    def check(self, task: Task) -> None:
        """What would fail before the first prompt of a task. Raises ModelError, or Away where nobody can tell now."""
        self._served = self._look()
        self._dialect(task)

    def _dialect(self, task: Task) -> Dialect:
        served, prompt = self._served, self._job.spec.prompt
        assert served is not None
        assert self._tokenizer is not None
        if served.takes_tokens:
            return TokenDialect(task, served.name, follows_xgrammar=follows_xgrammar(self._config.options))
        if prompt is None or prompt.format != "chat":
            raise needs_vllm("Prompts with format: completion are")
        return ChatDialect(task, served.name, self._tokenizer, prompt.chat_template_kwargs)

    def _feed(self, dialect: Dialect, waiting: Iterator[Prompt], *, is_read: bool) -> bool:
        """Sends what may be sent now; returns whether the prompts are read to their end."""
        while self._away is None and self._flow.room(self._clock.now()):
            if self._suspects:
                if not self._flow.in_flight:
                    self._send(dialect, self._suspects.popleft())
                return is_read
            if self._again:
                self._send(dialect, self._again.popleft())
                continue
            prompt = None if is_read else next(waiting, None)
            if prompt is None:
                return True
            self._send(dialect, Asked(prompt))
        return is_read

    def _send(self, dialect: Dialect, asked: Asked) -> None:
        asked.round = self._flow.sent()
        self._replies.send(dialect, asked)

    def _listen(self) -> Iterator[Generation | Failure]:
        """Waits up to a second; yields what came back, and puts aside what is to be asked again."""
        if not self._flow.in_flight:
            self._wait()
            return
        for asked, outcome in self._replies.wait(LISTEN_SECONDS):
            self._flow.returned()
            if isinstance(outcome, Generation | Failure):
                self._flow.answered()
                self._heard = self._clock.now()
                yield outcome
            elif isinstance(outcome, Refused):
                self._heard = self._clock.now()
                yield Failure(
                    asked.prompt.prompt_key, "engine", "refused", f"The server refused the prompt: {outcome.said}."
                )
            elif isinstance(outcome, Broken):
                yield from self._strike(asked, outcome)
            else:
                self._postpone(asked, outcome)

    def _strike(self, asked: Asked, fault: Broken) -> Iterator[Failure]:
        """An answer went wrong: the prompt is asked again, and later alone, since it may be what the server cannot bear."""
        self._flow.too_much(asked.round)
        asked.strikes += 1
        if asked.strikes >= MOST_STRIKES:
            said = f"The server {fault.said}, each of the {asked.strikes} times that it was asked this."
            yield Failure(asked.prompt.prompt_key, "engine", "engine_error", said)
        else:
            (self._suspects if asked.strikes >= SUSPECT else self._again).append(asked)

    def _postpone(self, asked: Asked, fault: ServerFault) -> None:
        """The server did not take the prompt, which is none of its fault."""
        self._again.append(asked)
        if isinstance(fault, Away) and fault.is_shed:
            self._flow.shed(asked.round, self._clock.now(), fault.wait)
        else:  # also a key that it does not take any more: looking at it again says so
            self._lose(fault if isinstance(fault, Away) else Away(fault.said))

    def _lose(self, fault: Away) -> None:
        """The server is not there: nothing is sent until it was looked at again."""
        if self._away is None:
            hours = self._spec.patience.total_seconds() / 3600
            self._info(f"The server at {self._api.base_url} {fault.said}. Trying again, for up to {hours:g} h ...")
        self._away = fault
        self._flow.wait(self._clock.now(), fault.wait)

    def _wait(self) -> None:
        """Waits a moment with nothing in flight; then, if it is time, looks whether the server is there again.

        Raises Stopped where patience is at its end, or where it came back with another model.
        """
        self._meanwhile()
        now = self._clock.now()
        if now - self._heard > self._spec.patience.total_seconds():
            said = self._away.said if self._away else "has too much to do"
            raise Stopped(
                f"The server at {self._api.base_url} {said}, and answered nothing for as long as engine.patience allows."
            )
        if now < self._flow.until:
            self._clock.sleep(min(self._flow.until - now, LISTEN_SECONDS))
        elif self._away is not None and self._served is not None:
            self._look_again(self._served)

    def _look_again(self, before: ServedModel) -> None:
        try:
            found = self._look()
        except Away as exc:
            self._lose(exc)
        except ModelError as exc:
            raise Stopped(f"The run cannot go on: {exc} Run it again to resume, once that is so.") from exc
        else:
            if found != before:
                said = f"The server at {self._api.base_url} came back with other settings than it had ({' '.join(found.checked)})."
                raise Stopped(said, fix="run the job again to resume, if it is the right one.")
            self._find_again()

    def _find_again(self) -> None:
        if self._away is not None:
            self._info(f"The server at {self._api.base_url} answers again.")
        self._away = None

    def close(self) -> None:
        self._replies.close()
        self._api.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def api_of(spec: ServerSpec, *, connections: int, stall_seconds: float) -> ServerApi:
    """The API that a job names. Raises UsageError where its key is missing."""
    key = None
    if spec.api_key_env is not None and not (key := os.environ.get(spec.api_key_env)):
        said = f"The environment has no {spec.api_key_env}, which is to hold the key of {spec.base_url}: export it."
        raise UsageError(said, field=("engine", "api_key_env"))
    return ServerApi(spec.base_url, key, connections=connections, stall_seconds=stall_seconds)


def openai_engine(
    job: Job, spec: OpenAISpec, config: EngineConfig, info: Info, meanwhile: Callable[[], object]
) -> OpenAIEngine:
    """The engine of a job. Raises UsageError."""
    api = api_of(spec, connections=MOST_IN_FLIGHT, stall_seconds=spec.stall.total_seconds())
    return OpenAIEngine(api, job, spec, config, info=info, meanwhile=meanwhile)


def check_server(job: Job, spec: OpenAISpec, config: EngineConfig, task: Task, info: Info) -> None:
    """What would fail in a run, known before. Says so where the server does not answer now: a run would wait for it.

    Raises UsageError or ModelError.
    """
    with openai_engine(job, spec, config, info, lambda: None) as engine:
        try:
            engine.check(task)
        except Away as exc:
            hours = spec.patience.total_seconds() / 3600
            info(f"The server at {spec.base_url} {exc.said}: a run would wait for it, for up to {hours:g} h.")


def model_names(spec: ServerSpec) -> list[str]:
    """What a server lists. Raises UsageError without its key, ModelError for what is no such API, ConnectionError otherwise."""
    api = api_of(spec, connections=1, stall_seconds=SECONDS)
    try:
        return [str(card["id"]) for card in listed_models(api)]
    except ServerFault as exc:
        raise ConnectionError(exc.said) from exc
    finally:
        api.close()
