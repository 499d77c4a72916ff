"""An engine that answers so many rows per second, whatever they are: it stands in for a model where only the rest is measured.

`python -m benchmarks.paced …` is `batchinfer …` with it in place of vLLM, as a process of its own with the same protocol. The
environment variable BENCH_RATE says how many rows it answers per second while it has any; it loads at once. Its log says for
how long it had none, after the first.
"""

from __future__ import annotations

import functools
import os
import time
from collections import deque
from unittest import mock

from batchinfer.core.records import Failure, Generation, Prompt
from batchinfer.engines.devices import Placement
from batchinfer.engines.pool import EnginePool
from batchinfer.engines.protocol import EngineConfig, EngineInfo, Task

RATE = "BENCH_RATE"
STEP = 0.02  # seconds of an iteration, or those of a single row if that takes longer
IN_FLIGHT = 256  # as many as vLLM has of ours on a CPU
IDLE = "without prompts, seconds: "
ANSWER = "a thing that is like the others, and has a number of its own"


class PacedDriver:
    """A `child.Driver`. Time in which it has nothing to do is lost, as it is to a model."""

    def __init__(self, config: EngineConfig, placement: Placement) -> None:
        self._rate = float(os.environ[RATE])
        self._waiting: deque[Prompt] = deque()
        self._busy_until = self._idle = 0.0
        self._emptied: float | None = None  # when it had no more
        options, where = config.options, placement.description
        self.info = EngineInfo(int(options.get("max_model_len", 1024)), IN_FLIGHT, f"{self._rate:g} rows/s on {where}")

    def begin(self, task: Task) -> None:
        """All tasks are alike."""

    def add(self, prompt: Prompt) -> Failure | None:
        """Takes a prompt."""
        if self._emptied is not None:
            self._idle, self._emptied = self._idle + time.monotonic() - self._emptied, None
        self._waiting.append(prompt)
        return None

    def busy(self) -> bool:
        """Whether any is left."""
        return bool(self._waiting)

    def step(self) -> list[Generation | Failure]:
        """Answers as many as one iteration has time for, when that time is over."""
        count = min(len(self._waiting), max(1, round(self._rate * STEP)))
        self._busy_until = max(self._busy_until, time.monotonic()) + count / self._rate
        time.sleep(max(0.0, self._busy_until - time.monotonic()))
        done = [self._waiting.popleft() for _ in range(count)]
        if not self._waiting:
            self._emptied = time.monotonic()
            print(f"{IDLE}{self._idle:.3f}", flush=True)
        return [Generation(each.prompt_key, ANSWER, "stop", len(each.token_ids), 0, 16) for each in done]


if __name__ == "__main__":
    from batchinfer.cli.main import main

    driver = functools.partial(EnginePool, driver="benchmarks.paced:PacedDriver")
    with mock.patch("batchinfer.engines.start.EnginePool", driver):
        main()
