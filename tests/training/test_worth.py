"""What held-out rows say of a model, and whether vLLM says the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from batchinfer.core.records import Failure, Generation, Prompt
from batchinfer.engines.protocol import EngineInfo, Task
from batchinfer.errors import ModelError
from batchinfer.planning import question
from batchinfer.training.parity import BOUND, Parity, check_parity
from batchinfer.training.records import HeldRow, RowScore
from batchinfer.training.worth import Worth, worth_of
from tests.factories import PretendEngine, World, model_job

ONE, TWO = ((1,), (2,)), ((1, 2), (1, 3))


def rows(
    rights: list[int], candidates: tuple[tuple[int, ...], ...] = ONE, lengths: tuple[int, ...] = (1, 1)
) -> list[HeldRow]:
    return [HeldRow((7, number), candidates, lengths, right) for number, right in enumerate(rights)]


def scores(logprobs: list[tuple[float, ...]]) -> list[RowScore]:
    return [RowScore(each, greedy=number % 2 == 0) for number, each in enumerate(logprobs)]


def test_of_choices() -> None:
    """Shares among the choices alone: the loss, the likeliest choice, and the order of the positive one's shares."""
    said = scores([(-1.0, -3.0), (-1.0, -2.0), (-4.0, -2.0), (-1.0, -1.5)])
    found = worth_of(rows([0, 0, 1, 1]), said, 0)
    shares = [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2)), 1 - 1 / (1 + math.exp(-0.5))]
    assert found.loss == pytest.approx(-sum(map(math.log, shares)) / 4)
    assert (found.rows, found.accuracy, found.area) == (4, 0.75, 1.0)
    assert worth_of(rows([0, 0, 1, 1]), said, None).area is None
    assert worth_of(rows([0, 0, 0, 0]), said, 0).area is None
    alike = scores([(-1.0, -1.0)] * 4)
    assert worth_of(rows([0, 0, 1, 1]), alike, 0).area == 0.5


def test_lengths_count() -> None:
    """What is divided when the job is asked is divided here."""
    said = scores([(-4.0, -3.0)])
    assert worth_of(rows([0], lengths=(4, 1)), said, None).accuracy == 1
    assert worth_of(rows([0], lengths=(1, 1)), said, None).accuracy == 0


def test_of_written_answers() -> None:
    """Without choices: how likely the right answer is, and whether it would be written."""
    found = worth_of(rows([0, 0], (ONE[0],), (1,)), scores([(-1.0,), (-3.0,)]), None)
    assert found == Worth(2, 2.0, 0.5, None)


class Served(PretendEngine):
    """An engine whose log-probabilities are those given, or that refuses."""

    def __init__(self, logprobs: list[tuple[float, ...]] | None) -> None:
        self._logprobs = logprobs
        self.tasks: list[Task] = []

    def wait_ready(self) -> EngineInfo:
        return EngineInfo(1000, 1, "nothing")

    def generate(self, task: Task, prompts: Iterable[Prompt]) -> Iterator[Generation | Failure]:
        self.tasks.append(task)
        for number, prompt in enumerate(prompts):
            if self._logprobs is None:
                yield Failure(prompt.prompt_key, "engine", "refused", "vLLM refused the prompt: no room.")
            else:
                yield Generation(prompt.prompt_key, "", "stop", 1, 0, 0, self._logprobs[number])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return model_job(tmp_path, {"id": [1], "text": ["a"]}, output={"type": "choice", "choices": ["a", "b"]})


def compared(world: World, engine: Served, held: list[HeldRow], said: list[RowScore]) -> Parity:
    asked = question.make(world.job, world.data)
    adapter = world.job.folder / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"r": 8}', encoding="utf-8")
    return check_parity(world.job, world.data, asked, "source", adapter, held, said, print, engine)


@pytest.mark.parametrize(("candidates", "firsts"), [(ONE, (1, 2)), (TWO, None)])
def test_vllm_says_the_same(
    world: World, candidates: tuple[tuple[int, ...], ...], firsts: tuple[int, ...] | None
) -> None:
    """Choices of one token are scored as a run scores them, others as continuations; scores of other rows do not matter."""
    engine = Served([(-1.0, -2.0), (-3.0, -1.005)])
    found = compared(world, engine, rows([0, 1], candidates), scores([(-1.0, -2.01), (-3.0, -1.0), (0.0, 0.0)]))
    assert found.rows == 2
    assert found.largest == pytest.approx(0.01)
    [task] = engine.tasks
    assert (task.score_tokens, task.score_continuations) == (firsts, firsts is None)
    assert task.adapter == str(world.job.folder / "adapter")


@pytest.mark.parametrize(
    ("logprobs", "said"),
    [
        (
            [(-1.0, -2.0), (-3.0, -1.0 - 2 * BOUND)],
            r"not kept: .* up to 0\.040 off .* on 2 rows, where 0\.02 is allowed",
        ),
        ([(-1.0, -2.0), (-3.0, math.nan)], "not kept"),
        ([(-1.0, -2.0), ()], "not kept"),
        (None, "not kept, since vLLM could not answer with it: vLLM refused the prompt: no room"),
    ],
)
def test_vllm_says_something_else(world: World, logprobs: list[tuple[float, ...]] | None, said: str) -> None:
    """The adapter is refused, in a sentence."""
    with pytest.raises(ModelError, match=said):
        compared(world, Served(logprobs), rows([0, 1]), scores([(-1.0, -2.0), (-3.0, -1.0)]))
