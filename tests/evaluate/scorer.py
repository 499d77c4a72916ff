"""A scorer that follows a script, so that it is known beforehand which prompt is better. It stands in for a model here alone."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from batchinfer.core.home import JobData
from batchinfer.core.records import Failure, Generation, Message, Prompt
from batchinfer.engines.protocol import EngineInfo, Task
from batchinfer.job import reader
from batchinfer.job.reader import Job
from tests.factories import write
from tests.in_process import InProcess
from tests.tiny import write_job

CHOICES = ["Positive", "Negative"]
Says = Callable[[Sequence[Message]], float | str | None]
"""What the scorer makes of a prompt: the probability of Positive, a text, or nothing, which is a failure."""


class ScriptedScorer(InProcess):
    """An `Engine` that answers each prompt by a function of its messages. It counts what it was asked."""

    def __init__(self, says: Says) -> None:
        self._says = says
        self.asked: list[tuple[Message, ...]] = []

    def start(self) -> None:
        """Nothing is loaded."""

    def wait_ready(self) -> EngineInfo:
        """What such an engine would say of itself."""
        return EngineInfo(max_model_len=10_000, max_in_flight=8, description="a script")

    def generate(self, task: Task, prompts: Iterable[Prompt]) -> Iterator[Generation | Failure]:
        for prompt in prompts:
            self.asked.append(prompt.messages)
            said, tokens = self._says(prompt.messages), len(prompt.token_ids)
            if said is None:
                yield Failure(prompt.prompt_key, "engine", "refused", "The script refuses this prompt.")
            elif isinstance(said, str):
                yield Generation(prompt.prompt_key, said, "stop", tokens, 0, 1)
            else:
                logprobs = (math.log(said), math.log(1 - said))
                yield Generation(prompt.prompt_key, "", "length", tokens, 0, 1, logprobs)


def chance(text: str) -> float:
    """A number between 0 and 1 that is the same for the same text each time."""
    return (zlib.crc32(text.encode()) % 9973 + 1) / 9975


def noisy(row: str, noise: float, salt: str = "") -> float:
    """The probability of Positive for a row such as good-12 or bad-12, which is right but for the noise."""
    truth = 0.75 if row.startswith("good") else 0.25
    return truth * (1 - noise) + chance(salt + row) * noise


def shots_of(messages: Sequence[Message]) -> int:
    """How many examples a prompt shows."""
    return sum(role == "assistant" for role, _ in messages)


def rows(count: int, start: int = 0) -> list[str]:
    """Rows of both kinds in turn."""
    return [f"{'good' if number % 2 else 'bad'}-{number}" for number in range(start, start + count)]


def answers(texts: Sequence[str]) -> list[str]:
    """The right answer of each."""
    return ["Positive" if text.startswith("good") else "Negative" for text in texts]


def rated_job(
    folder: Path, tiny: Path, golden: Sequence[str], pool: Sequence[str] | None = None, **sections: Any
) -> tuple[Job, JobData]:
    """A job that asks of rows whether they are good, with golden rows, and a pool of examples if there is one."""
    place = folder / "rated"
    listed = [*golden, *(pool or []), "good-listed"]
    measured: dict[str, Any] = {"golden": {"path": "golden.parquet"}, "metric": "auc", "positive": "Positive"}
    write(place / "golden.parquet", {"text": list(golden), "answer": answers(golden)})
    if pool is not None:
        write(place / "labels.parquet", {"text": list(pool), "answer": answers(pool)})
        measured["pool"] = "labels.parquet"
    fixed: dict[str, Any] = {
        "output": {"type": "choice", "choices": CHOICES},
        "gate": {"coverage": 0},
        "eval": measured,
    }
    write_job(place, {"text": listed}, tiny, **(fixed | sections))
    return reader.load(str(place), {}), JobData(folder / "home", "rated")
