"""Two models that share a list, for tests: the large one is the tiny model with an adapter, and an engine pretends both."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchinfer.core.home import JobData
from batchinfer.core.records import Failure, Generation, Prompt
from batchinfer.engines.protocol import EngineInfo, Task
from batchinfer.job.reader import Job
from tests.factories import LENIENT
from tests.in_process import InProcess
from tests.tiny import make_job, numbered

CHOICES = ["yes", "no"]
SAMPLE = 64  # for the promise below
PROMISE = {"agree": 0.8, "confidence": 0.8}
Says = Callable[[int, bool], float | Failure]
"""The probability of "yes", of a row's number, and whether it is the large model that is asked."""


def says_well(number: int, large: bool) -> float:
    """The small model is sure, and right, on three rows in four; the large one says the opposite on the others."""
    sure = number % 4 != 0
    if large:
        return 0.99 if sure else 0.01
    return 0.95 if sure else 0.6


def make_cascade(
    folder: Path, tiny: Path, rows: int = 200, promise: dict[str, Any] | None = None, **sections: Any
) -> tuple[Job, JobData]:
    """A job whose rows are numbered."""
    adapter = folder / "adapter"
    adapter.mkdir(parents=True, exist_ok=True)
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 8}), encoding="utf-8")
    model = {"id": str(tiny), "cascade": {"large": {"id": str(tiny), "adapter": "adapter"}} | (promise or PROMISE)}
    content: dict[str, Any] = {
        "model": model,
        "output": {"type": "choice", "choices": CHOICES},
        "gate": LENIENT,
    } | sections
    return make_job(folder, numbered(rows), tiny, **content)


@dataclass
class TwoModels(InProcess):
    """An `Engine` for both models. at: what to do when it has answered so many prompts of the small one, or of the large one."""

    says: Says = says_well
    at: dict[tuple[bool, int], Callable[[], object]] = field(default_factory=dict)
    asked: dict[bool, list[int]] = field(default_factory=lambda: {False: [], True: []})

    def start(self) -> None:
        """Nothing is loaded."""

    def wait_ready(self) -> EngineInfo:
        """What it says of itself."""
        return EngineInfo(max_model_len=1000, max_in_flight=1, description="two models")

    def generate(self, task: Task, prompts: Iterable[Prompt]) -> Iterator[Generation | Failure]:
        """By the number in each prompt."""
        large = task.adapter is not None
        for prompt in prompts:
            number = int(prompt.messages[-1][1].split()[-1])
            said = self.says(number, large)
            self.asked[large].append(number)
            if isinstance(said, Failure):
                yield Failure(prompt.prompt_key, "engine", said.reason, said.detail)
            else:
                logprobs = (math.log(said), math.log(1 - said))
                yield Generation(prompt.prompt_key, "", "stop", 10, 0, 1, logprobs)
            if (large, len(self.asked[large])) in self.at:
                self.at.pop((large, len(self.asked[large])))()
