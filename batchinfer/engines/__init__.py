"""Engines turn prompts into generations. The rest of the program knows only this protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Protocol, Self

from batchinfer.core.records import EngineInfo, Failure, Generation, Prompt, Task


class Engine(Protocol):
    """Something that answers prompts. A context manager: entering starts it, leaving stops it."""

    def start(self) -> None:
        """Begins to load, and returns at once."""

    def wait_ready(self) -> EngineInfo:
        """Waits until it is loaded. Raises ModelError if it cannot be, Stopped if it died of something else."""

    def generate(self, task: Task, prompts: Iterable[Prompt]) -> Iterator[Generation | Failure]:
        """Answers each prompt once, as each finishes, in any order, matched by key.

        Takes prompts lazily, a little ahead of what it can work on; when `prompts` ends, it
        finishes what it took. Raises Stopped if the engine cannot be kept alive.
        """

    def close(self) -> None:
        """Stops at once and frees what it held."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None: ...
