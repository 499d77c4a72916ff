"""Threads that each wait for one reply of a server at a time, for one that does nothing but hand out and collect."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from batchinfer.core.records import Failure, Prompt
from batchinfer.engines.dialects import Dialect
from batchinfer.engines.flow import LEAST_WAIT, MOST_WAIT
from batchinfer.engines.server_api import Refused, ServerApi, ServerFault

MOST_STRIKES = 4  # failed answers to one prompt, after which it is asked no more
# times that it is asked again at once; and then, in all a minute, before it is to blame itself
SOON_SHED, OFTEN_SHED = 4, 7


@dataclass(slots=True)
class Asked:
    """A prompt that a server is asked.

    prompt: the prompt.
    strikes: how often the answer to it went wrong.
    round: of the flow in which it was sent.
    sent: when, by the engine's clock.
    sheds: how often the server had too much to do for it.
    shed_by: what it said then, the last time.
    later: when it may be asked again, by the engine's clock, if there is anything else to ask.
    others: how much the server had done when it last had too much to do for it.
    first: how many more others it had done than it had too much to do for, when it first had for this one.
    fault: what a batch says of it that it did not answer.
    """

    prompt: Prompt
    strikes: int = 0
    round: int = 0
    sent: float = 0.0
    sheds: int = 0
    shed_by: ServerFault | None = None
    later: float = 0.0
    others: int = 0
    first: int = 0
    fault: ServerFault | None = None

    def shed(self, fault: ServerFault, now: float, others: int, sheds: int) -> bool:
        """The server had too much to do for it; whether it says so of this prompt alone: for minutes, while it mostly does others.

        The first few times it is asked again at once; then it waits ever longer, so that others get their turn.
        others, sheds: how much the server has done so far, and how often it had too much to do.
        """
        self.sheds, self.shed_by = self.sheds + 1, fault
        more = others - (sheds - self.sheds)  # that it did than it had too much to do for, this one left out
        if self.sheds == 1:
            self.first = more
        waits = self.sheds - SOON_SHED
        self.later = now + min(LEAST_WAIT * 2 ** min(waits, 10), MOST_WAIT) if waits >= 0 else now
        is_passed_over = others > self.others and more > self.first
        self.others = others
        return waits >= OFTEN_SHED and is_passed_over

    def is_due(self, now: float, others: int) -> bool:
        """Whether it may be asked again: others had their turn, if it was too much several times."""
        return self.later <= now and (self.sheds < SOON_SHED or others > self.others)

    def strike(self, fault: ServerFault) -> Failure | None:
        """Counts an answer that went wrong; the failure that this makes of the prompt, once it happened too often."""
        self.strikes += 1
        if self.strikes < MOST_STRIKES:
            return None
        said = f"The server {fault.said}, each of the {self.strikes} times that it was asked this."
        return Failure(self.prompt.prompt_key, "engine", "engine_error", said)

    def given_up(self) -> Failure:
        """The failure of a prompt that the server had too much to do for until patience was at its end."""
        assert self.shed_by is not None
        said = (
            f"The server {self.shed_by.said}, each time that it was asked this, for as long as engine.patience allows."
        )
        return Failure(self.prompt.prompt_key, "engine", "engine_error", said)

    def refused(self, fault: Refused) -> Failure:
        """The failure of a prompt that the server will never take."""
        return Failure(self.prompt.prompt_key, "engine", "refused", f"The server refused the prompt: {fault.said}.")


class Replies:
    """Threads that each wait for one reply at a time. They die with the program: nobody waits for them at its end."""

    def __init__(self, api: ServerApi) -> None:
        self._api = api
        self._inbox: queue.SimpleQueue[tuple[Dialect, Asked, int] | None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[tuple[Asked, Any, int]] = queue.SimpleQueue()
        self._threads, self._busy, self._call = 0, 0, 0

    def send(self, dialect: Dialect, asked: Asked) -> None:
        """Lets a thread that is free ask, or one more."""
        self._busy += 1
        if self._busy > self._threads:
            self._threads += 1
            threading.Thread(target=self._work, name="batchinfer-request", daemon=True).start()
        self._inbox.put((dialect, asked, self._call))

    def wait(self, seconds: float) -> Iterator[tuple[Asked, Any]]:
        """What came back, or was raised: at least one reply, unless none does within so many seconds."""
        with contextlib.suppress(queue.Empty):
            while True:
                asked, outcome, call = self._outbox.get(timeout=seconds)
                seconds = 0.0
                self._busy -= 1
                if call == self._call:
                    yield asked, outcome

    def forget(self) -> None:
        """What is under way is nobody's any more."""
        self._call += 1

    def close(self) -> None:
        """Ends each thread, those that wait for a reply once that is there."""
        self.forget()
        for _ in range(self._threads):
            self._inbox.put(None)
        self._threads = self._busy = 0

    def _work(self) -> None:
        while (work := self._inbox.get()) is not None:
            dialect, asked, call = work
            try:
                outcome: Any = dialect.read(asked.prompt, self._api.post(dialect.path, dialect.body(asked.prompt)))
            except Exception as exc:  # noqa: BLE001 - told to the run's thread, which knows what to do
                outcome = exc
            self._outbox.put((asked, outcome, call))
