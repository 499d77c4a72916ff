"""What a run counts while it goes on, and whom it tells."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from batchinfer.core.person import Nobody, Person
from batchinfer.core.python_words import reworded
from batchinfer.core.records import Failure, Generation, Prediction
from batchinfer.engines.protocol import NodeWork


@dataclass(slots=True)
class Progress:
    """What the generation came to so far.

    todo: prompts that this run is to generate.
    generated: those of them with a prediction.
    failed: those of them without one.
    prompt_tokens: of all prompts that were answered.
    cached_tokens: those of the prompt tokens that prefix caching saved.
    output_tokens: of all answers.
    load_seconds: until the engine was ready, but for those in which it waited.
    waiting_seconds: until it had devices, or its server answered.
    started: when generation began, by the monotonic clock; None before.
    ended: when it ended, by the same clock; None before.
    choice_masses: the choice mass of each prediction that has one.
    reasons: how often each word was the reason of a failure.
    nodes: what each machine that the engine runs on did, by name.
    """

    todo: int = 0
    generated: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    load_seconds: float = 0.0
    waiting_seconds: float = 0.0
    started: float | None = None
    ended: float | None = None
    choice_masses: list[float] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    nodes: Mapping[str, NodeWork] = field(default_factory=dict)

    def count(self, answer: Generation | Failure, read: Prediction | Failure) -> None:
        """Counts an answer and what was read from it."""
        if isinstance(answer, Generation):
            self.prompt_tokens += answer.prompt_tokens
            self.cached_tokens += answer.cached_tokens
            self.output_tokens += answer.output_tokens
        if isinstance(read, Failure):
            self.failed += 1
            self.reasons[read.reason] += 1
            return
        self.generated += 1
        if read.choice_mass is not None:
            self.choice_masses.append(read.choice_mass)

    @classmethod
    def together(cls, parts: Sequence[Progress]) -> Progress:
        """What several turns came to, in the time that all of them took."""
        whole = cls(started=0.0, ended=sum(part.seconds for part in parts))
        for name in (
            "todo",
            "generated",
            "failed",
            "prompt_tokens",
            "cached_tokens",
            "output_tokens",
            "load_seconds",
            "waiting_seconds",
        ):
            setattr(whole, name, sum(getattr(part, name) for part in parts))
        whole.choice_masses = [mass for part in parts for mass in part.choice_masses]
        return whole

    @property
    def seconds(self) -> float:
        """Of generation, so far or in all."""
        if self.started is None:
            return 0.0
        return (time.monotonic() if self.ended is None else self.ended) - self.started

    @property
    def remaining(self) -> int:
        return self.todo - self.done

    @property
    def done(self) -> int:
        return self.generated + self.failed

    @property
    def computed_tokens(self) -> int:
        """Tokens that the model worked on: what a share of the cost is reckoned by."""
        return self.prompt_tokens - self.cached_tokens + self.output_tokens

    @property
    def prefix_saving(self) -> float | None:
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else None

    def rate(self, count: int) -> float | None:
        """Per second of generation."""
        return count / self.seconds if self.seconds > 0 else None


class Console(Person, Protocol):
    """The person who started a run, who sees how it goes, too."""

    def progress(self, progress: Progress, cached: int) -> None: ...


class Unattended(Nobody):
    """A `Console` with nobody at it."""

    def progress(self, progress: Progress, cached: int) -> None:
        """Nothing."""


class CallersConsole:
    """The `Console` of who calls from Python, told and asked in the words of Python; nobody without one."""

    def __init__(self, console: Console | None) -> None:
        self._console = console or Unattended()

    def info(self, text: str) -> None:
        self._console.info(reworded(text))

    def confirm(self, text: str, *, typed: str | None = None) -> bool | None:
        return self._console.confirm(reworded(text), typed=typed)

    def progress(self, progress: Progress, cached: int) -> None:
        self._console.progress(progress, cached)
