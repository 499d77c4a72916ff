"""The engine `openai`: a server with an OpenAI-compatible API, asked row by row, as many at a time as it takes.

The run's own thread decides what is sent and when; other threads do nothing but wait for one reply each. A server that is
away is waited for, for hours if need be, and looked at again before it is asked on: another model may have taken its place.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from batchinfer.core.records import Failure, Generation, Info, Prompt
from batchinfer.core.signals import heed
from batchinfer.engines.dialects import Dialect
from batchinfer.engines.protocol import EngineConfig, Task
from batchinfer.engines.replies import Asked, Replies
from batchinfer.engines.served_model import ServedModel
from batchinfer.engines.server_api import Away, Broken, Forbidden, NoEntry, Refused, ServerApi, ServerFault
from batchinfer.engines.server_engine import LISTEN_SECONDS, EngineClock, OtherModel, ServerEngine, api_of
from batchinfer.errors import CutShort
from batchinfer.job.engine_spec import MOST_IN_FLIGHT, OpenAISpec
from batchinfer.job.reader import Job

SUSPECT = 2  # failed answers to one prompt, after which it is asked alone
SILENT_SECONDS = 60.0  # that a server may have too much to do before that is worth a word
MANY = 100  # answers for each prompt that is left at the end of patience, if several are


class OpenAIEngine(ServerEngine):
    """Asks a server. It is a `protocol.Engine`."""

    def __init__(
        self, api: ServerApi, job: Job, spec: OpenAISpec, config: EngineConfig, *,
        info: Info = lambda _: None, meanwhile: Callable[[], object] = lambda: None, clock: EngineClock | None = None,
    ) -> None:  # fmt: skip
        most = MOST_IN_FLIGHT if spec.in_flight == "auto" else spec.in_flight
        super().__init__(api, job, spec, config, most=most, info=info, meanwhile=meanwhile, clock=clock)
        self._replies = Replies(api)
        self._stall_seconds = spec.stall.total_seconds()
        # with more in flight, answers would be taken for lost that only wait their turn
        self._soon = self._stall_seconds / 4
        self._again: deque[Asked] = deque()  # to be sent again, before any other
        self._suspects: deque[Asked] = deque()  # to be sent again, each alone
        # a look at the server shows whether they or it are to blame
        self._doubted: list[tuple[Asked, ServerFault]] = []
        self._results: deque[Generation | Failure] = deque()  # to be handed on once the server is known to be the same
        self._alone: Asked | None = None  # a suspect that is in flight
        self._done = self._sheds = 0  # requests that it did, and for which it had too much to do
        self._works = False  # whether it did when it was last looked at again
        self._told_of = -1.0  # when it last did its work, before it was said that it has too much to do
        self._ended: Exception | None = None  # why nothing more is sent
        self._unread: Iterator[Prompt] | None = None  # None once they are read to their end
        self._open = 0  # prompts that were read, and not answered

    def generate(self, task: Task, prompts: Iterable[Prompt]) -> Iterator[Generation | Failure]:
        for left in (self._again, self._suspects, self._doubted, self._results):
            left.clear()
        self._replies.forget()
        self._flow.in_flight, self._ended, self._alone = 0, None, None
        self._unread, self._open = iter(prompts), 0
        dialect, self._heard = self._dialect(task), self._clock.now()
        while True:
            self._feed(dialect)
            if self._unread is None and not self._open:
                return
            if self._ended is not None and not self._flow.in_flight:
                yield from self._handed_on()
                raise self._ended
            self._listen()
            yield from self._handed_on()

    def _handed_on(self) -> Iterator[Generation | Failure]:
        """What came back, unless the server may be another one by now. Before more is sent: too many failures end the run."""
        while self._results and (self._away is None or self._ended is not None):
            self._open -= 1
            yield self._results.popleft()

    def _feed(self, dialect: Dialect) -> None:
        """Sends what may be sent now."""
        if self._ended is not None:
            if (asked := self._next()) is not None:  # they mostly end by themselves
                self._again.append(asked)
            return
        while self._away is None and self._alone is None and self._flow.room(self._clock.now()):
            if self._suspects:
                if not self._flow.in_flight:
                    self._alone = self._suspects.popleft()
                    self._send(dialect, self._alone)
                return
            asked = self._due() if self._again else None
            if asked is None and len(self._again) < MOST_IN_FLIGHT:  # no more are read than can wait their turn
                asked = self._next()
            if asked is None:
                return
            self._send(dialect, asked)

    def _next(self) -> Asked | None:
        """One more prompt, if there is one. If it cannot be made, that ends the run."""
        try:
            prompt = None if self._unread is None else next(self._unread, None)
        except Exception as exc:  # noqa: BLE001 - raised once nothing is in flight
            heed(exc)  # a second Ctrl-C, that came while DuckDB read, waits for nothing
            self._ended = self._ended or exc
            self._open += 1  # it has no answer
            return None
        if prompt is None:
            self._unread = None
            return None
        self._open += 1
        return Asked(prompt)

    def _due(self) -> Asked | None:
        """What is to be asked again now; with nothing else to ask, whatever is."""
        now = self._clock.now()
        found = next((asked for asked in self._again if asked.is_due(now, self._done)), None)
        if found is None and not self._flow.in_flight and (self._unread is None or len(self._again) >= MOST_IN_FLIGHT):
            found = self._again[0]
        if found is not None:
            self._again.remove(found)
        return found

    def _give_up(self) -> None:
        """Where the server works, and does all but a few prompts, those fail: else each later run would wait for them again."""
        left = [*self._again, *self._suspects]
        are_few = self._unread is None and len(left) == self._open <= max(1, self._done // MANY)
        is_there = self._works and (self._away is None or self._away.is_shed)
        if not (are_few and is_there and all(asked.shed_by for asked in left)):
            super()._give_up()
        self._results.extend(asked.given_up() for asked in left)
        self._again.clear()
        self._suspects.clear()
        self._away = None

    def _send(self, dialect: Dialect, asked: Asked) -> None:
        asked.round, asked.sent = self._flow.sent(), self._clock.now()
        self._replies.send(dialect, asked)

    def _listen(self) -> None:
        """Waits up to a second; collects what came back, and puts aside what is to be asked again."""
        if not self._flow.in_flight:
            with self._ending():
                self._wait()
            return
        if self._ended is None:
            with self._ending():
                self._meanwhile()
                self._check_patience(self._stall_seconds)
        for asked, outcome in self._replies.wait(LISTEN_SECONDS):
            self._flow.returned()
            self._alone = None if asked is self._alone else self._alone
            self._done += isinstance(outcome, Generation | Failure | Refused)
            if isinstance(outcome, Generation | Failure):
                self._hear(soon=self._clock.now() - asked.sent < self._soon)
                self._results.append(outcome)
            elif isinstance(outcome, Refused):
                self._heard = self._clock.now()
                self._results.append(asked.refused(outcome))
            elif not isinstance(outcome, ServerFault):  # no server is to blame for that
                self._ended = self._ended or outcome
            elif self._ended is not None:
                continue  # it is the next run's
            elif isinstance(outcome, Broken) and not outcome.is_lost:
                self._strike(asked, outcome)
            else:
                self._postpone(asked, outcome)
        if self._away is not None and self._ended is None and self._clock.now() >= self._flow.until:
            self._look_meanwhile()

    def _look_meanwhile(self) -> None:
        """Not only once all are back, since one may be in flight for long."""
        assert self._served is not None
        with self._ending():
            self._look_again(self._served)

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """What ends the run lets what is in flight be waited for. Another model does not: it may be what answers that."""
        try:
            yield
        except OtherModel:
            raise
        except Exception as exc:  # noqa: BLE001 - raised once nothing is in flight
            self._ended = self._ended or exc

    def _strike(self, asked: Asked, fault: ServerFault) -> None:
        """An answer went wrong: the prompt is asked again, and later alone, since it may be what the server cannot bear."""
        failure = asked.strike(fault)
        if failure is None:
            (self._suspects if asked.strikes >= SUSPECT else self._again).append(asked)
        elif isinstance(fault, NoEntry) and not isinstance(fault, Forbidden):
            self._ended = self._ended or CutShort(f"The server at {self._api.base_url} {fault.said}.")
        else:
            self._results.append(failure)

    def _postpone(self, asked: Asked, fault: ServerFault) -> None:
        """The server did not take the prompt. It is asked again once the server was looked at, unless that only has too much to do."""
        if isinstance(fault, Away) and fault.is_shed:
            self._shed(asked, fault)
            return
        if isinstance(fault, Broken):
            self._flow.too_much(asked.round)
        self._doubted.append((asked, fault))
        self._lose(fault, tells=not isinstance(fault, Broken))

    def _shed(self, asked: Asked, fault: Away) -> None:
        """The server has too much to do. It may say so of one prompt for ever: then it is that prompt, and not the server."""
        now = self._clock.now()
        self._flow.shed(asked.round, now, fault.wait)
        self._sheds += 1
        if asked.shed(fault, now, self._done, self._sheds):
            self._strike(asked, fault)
        else:
            self._again.append(asked)
        if self._flow.is_in_vain:  # a proxy says so, too, of a server that is not there, and may be another one later
            self._lose(fault, tells=False)
            if self._told_of < self._heard < now - SILENT_SECONDS:
                self._told_of = self._heard
                self._info(
                    f"The server at {self._api.base_url} {fault.said}, and answers nothing: it is asked again ..."
                )

    def _look_again(self, before: ServedModel) -> None:
        """If the server is there, and works, what was not answered counts against the prompts; if it is not, against none of them."""
        super()._look_again(before)
        self._works = self._away is None
        doubted, self._doubted = self._doubted, []
        for asked, fault in doubted:
            if self._away is None:
                self._strike(asked, fault)
            else:
                self._again.append(asked)

    def close(self) -> None:
        self._replies.close()
        super().close()


def openai_engine(
    job: Job, spec: OpenAISpec, config: EngineConfig, info: Info, meanwhile: Callable[[], object]
) -> OpenAIEngine:
    """The engine of a job. Raises UsageError."""
    api = api_of(spec, connections=MOST_IN_FLIGHT, stall_seconds=spec.stall.total_seconds())
    return OpenAIEngine(api, job, spec, config, info=info, meanwhile=meanwhile)
