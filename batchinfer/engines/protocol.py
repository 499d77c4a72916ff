"""The interface between the program and its engines: prompts in, generations out as each finishes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from batchinfer.core.cost import Devices
from batchinfer.core.records import Failure, Generation, Prompt


@dataclass(frozen=True, slots=True)
class Task:
    """The work on every prompt of one `generate` call.

    sampling: keyword arguments of vLLM's SamplingParams.
    constraint: what the text must obey: ("json", schema), ("regex", pattern) or None.
    score_tokens: score exactly these tokens as the first one; nothing is generated then.
    score_continuations: score the continuations of each prompt; nothing is generated then.
    adapter: folder of a LoRA adapter, or None.
    """

    sampling: dict[str, Any]
    constraint: tuple[str, Any] | None = None
    score_tokens: tuple[int, ...] | None = None
    score_continuations: bool = False
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The model and options that an engine process loads.

    model: a folder or a hub id.
    revision: a hub commit.
    dtype: of the weights, as vLLM names it.
    quantization: of the weights, as vLLM names it.
    tensor_parallel: GPUs that share one copy.
    adapter: folder of a LoRA adapter.
    adapter_rank: the adapter's rank.
    adapter_modules: what the adapter changes, by the last part of its name, such as q_proj; none where that is not known.
    options: passed on to vLLM as they are.
    settings: those of the job's section model that change answers and are not at their defaults, such as options.seed.
    """

    model: str
    revision: str | None = None
    dtype: str = "auto"
    quantization: str | None = None
    tensor_parallel: int = 1
    adapter: str | None = None
    adapter_rank: int = 16
    adapter_modules: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """An engine's description of itself, once it is loaded.

    max_model_len: tokens of a prompt and its answer together.
    max_in_flight: how many prompts it can work on, with as many again that wait.
    description: what it is and where it runs, for people.
    version: the program that computes, such as vLLM 0.32.0; empty where nobody knows.
    checked: of a server that others run, what was looked at to know that it has the job's model, a sentence each.
    unshown: what could not be shown of it, a phrase each.
    """

    max_model_len: int
    max_in_flight: int
    description: str
    version: str = ""
    checked: tuple[str, ...] = ()
    unshown: tuple[str, ...] = ()


@dataclass(slots=True)
class NodeWork:
    """What one machine did so far.

    rows: that it answered.
    since: when it began, by the monotonic clock.
    """

    rows: int = 0
    since: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        """Rows per second since it began."""
        return self.rows / max(time.monotonic() - self.since, 1.0)


class Engine(Protocol):
    """Something that answers prompts. A context manager: entering starts it, leaving stops it.

    devices: what it holds meanwhile.
    nodes: what each machine that it runs on did so far, by name.
    waited: seconds for which it had no devices yet, or its server was away, before it was loaded.
    """

    @property
    def devices(self) -> Devices: ...

    @property
    def nodes(self) -> Mapping[str, NodeWork]: ...

    @property
    def waited(self) -> float: ...

    def start(self) -> None:
        """Begins to load, and returns at once."""

    def wait_ready(self) -> EngineInfo:
        """Waits until it is loaded. Raises ModelError if it cannot be, Stopped if it died of something else."""

    def generate(self, task: Task, prompts: Iterable[Prompt]) -> Iterator[Generation | Failure]:
        """Answers each prompt once, as each finishes, in any order, matched by key.

        Takes prompts lazily, a little ahead of what it can work on; when `prompts` ends, it
        finishes what it took. Raises Stopped if the engine cannot be kept alive.
        """

    def committed(self, keys: Iterable[bytes]) -> None:
        """What `generate` yielded for the prompts with these keys is in the cache."""

    def close(self) -> None:
        """Stops at once and frees what it held."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None: ...
