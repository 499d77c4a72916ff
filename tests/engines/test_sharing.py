"""Which process gets which prompts: the real pool over simulated processes, which count the tokens that they compute."""

from __future__ import annotations

import multiprocessing
import subprocess
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import pytest

from batchinfer.core.records import Continuation, Failure, Generation, Prompt
from batchinfer.engines.devices import Placement
from batchinfer.engines.pool import EnginePool
from batchinfer.engines.process import LocalProcess
from batchinfer.engines.protocol import EngineConfig, EngineInfo, Task
from batchinfer.engines.sharing import AHEAD, PromptQueue, shared_blocks
from tests.scripted import read_diary
from tests.tiny import scripted

TASK = Task({"temperature": 0.0})
BLOCK = 16
PREFIX = 10  # blocks
IN_FLIGHT = 32


def block(*name: int) -> tuple[int, ...]:
    """The tokens of a block that is like no other."""
    return (hash(name) % 50_000, *name, *range(BLOCK - 1 - len(name)))


def grouped(*sizes: int, system: int = 0) -> list[Prompt]:
    """Prompts in groups that share a long beginning, in order. system: blocks that all of them share before that."""
    common = sum((block(0, number) for number in range(system)), ())
    found = list[Prompt]()
    for group, size in enumerate(sizes, 1):
        prefix = common + sum((block(group, number) for number in range(PREFIX)), ())
        for row in range(size):
            found.append(Prompt(len(found).to_bytes(16, "big"), (), (*prefix, *block(group, PREFIX, row)[:8])))
    return found


class Cache:
    """The KV cache of one process: the blocks that were used last, of a prompt the first ones longest.

    computed: tokens that it did not hold.
    """

    def __init__(self, blocks: int) -> None:
        self._blocks, self._held = blocks, OrderedDict[int, None]()
        self.computed = 0

    def ask(self, token_ids: tuple[int, ...]) -> None:
        """A prompt passes through the model."""
        chain = [hash(token_ids[:end]) for end in range(BLOCK, len(token_ids) + 1, BLOCK)]
        hits = next((number for number, name in enumerate(chain) if name not in self._held), len(chain))
        self.computed += len(token_ids) - hits * BLOCK
        for name in reversed(chain):
            self._held[name] = None
            self._held.move_to_end(name)
        while len(self._held) > self._blocks:
            self._held.popitem(last=False)


class Simulated:
    """An engine process without a process: answers in order, so many prompts a turn.

    answered: the prompts that it answered.
    idle: turns in which it had nothing to do.
    """

    def __init__(self, pipe: Connection, speed: float, dies_after: int | None) -> None:
        self._pipe, self._speed, self._dies_after = pipe, speed, dies_after
        self._credit, self._waiting = 0.0, deque[Prompt]()
        self.cache = Cache(4 * (PREFIX + 1) + 4)
        self.answered: list[Prompt] = []
        self.idle = 0

    def turn(self) -> None:
        """Reads what came, and answers."""
        while not self._pipe.closed and self._pipe.poll():
            kind, content = self._pipe.recv()
            if kind == "load":
                self._pipe.send(("ready", EngineInfo(10_000, IN_FLIGHT, "simulated")))
                return
            if kind == "prompts":
                self._waiting.extend(content)
        if self._pipe.closed:
            return
        if self._dies_after is not None and len(self.answered) >= self._dies_after:
            self._pipe.close()
            return
        self.idle += not self._waiting
        self._credit += self._speed
        done = [self._answer() for _ in range(min(int(self._credit), len(self._waiting)))]
        self._credit %= 1
        self._pipe.send(("results", done))

    def _answer(self) -> Generation:
        prompt = self._waiting.popleft()
        self.cache.ask(prompt.token_ids)
        self.answered.append(prompt)
        return Generation(prompt.prompt_key, "", "stop", len(prompt.token_ids), 0, 1)


class NoProcess:
    """Stands for a process that has ended."""

    pid = 2**31 - 1  # that no process has

    def wait(self, timeout: float | None = None) -> int:
        return -9


class SimulatedPool(EnginePool):
    """The pool, with simulated processes of these speeds. dies_after: answers of the first one before it dies."""

    def __init__(self, log: Path, speeds: Sequence[float], dies_after: int | None = None) -> None:
        placements = [Placement(cores=(number,)) for number in range(len(speeds))]
        config = EngineConfig("simulated", options={"block_size": BLOCK})
        super().__init__(config, placements, log, launch=self._simulate)
        self._speeds, self._dies_after = speeds, dies_after
        self.simulated: list[Simulated] = []

    def _simulate(self, _driver: str, _config: EngineConfig, placement: Placement, _log: Path) -> LocalProcess:
        ours, theirs = multiprocessing.Pipe()
        dies_after = None if self.simulated else self._dies_after
        self.simulated.append(Simulated(theirs, self._speeds[placement.cores[0]], dies_after))
        process = LocalProcess(cast("subprocess.Popen[bytes]", NoProcess()), ours)
        process.send("load")
        return process

    def _listen(self) -> Iterator[Generation | Failure]:
        for simulated in self.simulated:
            simulated.turn()
        yield from super()._listen()

    def answer(self, prompts: Sequence[Prompt]) -> None:
        """Answers prompts; fails if one is not answered, or twice."""
        with self:
            self.wait_ready()
            keys = [result.prompt_key or b"" for result in self.generate(TASK, prompts)]
        assert sorted(keys) == sorted(prompt.prompt_key for prompt in prompts)

    def over_fewest(self, prompts: Sequence[Prompt]) -> float:
        """Prompt tokens that were computed, over the fewest possible."""
        endless = Cache(10**9)
        for prompt in prompts:
            endless.ask(prompt.token_ids)
        return sum(simulated.cache.computed for simulated in self.simulated) / endless.computed

    @property
    def is_kept_busy(self) -> bool:
        """Whether none was without work for longer than what others had in them when the list was at its end explains."""
        end = IN_FLIGHT / min(self._speeds) - IN_FLIGHT / max(self._speeds)
        return all(simulated.idle <= end + 2 for simulated in self.simulated)

    @property
    def rows(self) -> list[int]:
        """How many rows each answered."""
        return [len(simulated.answered) for simulated in self.simulated]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "engine.log"


@pytest.mark.parametrize("speeds", [[4], [4, 4], [4, 3, 5], [2] * 4])
@pytest.mark.parametrize("system", [0, 5])
def test_a_shared_prefix_is_computed_by_one_process(log: Path, speeds: list[float], system: int) -> None:
    """Of 2,000 rows over 40 long prefixes few tokens are computed twice, also where all rows begin alike before that."""
    prompts = grouped(*[50] * 40, system=system)
    pool = SimulatedPool(log, speeds)
    pool.answer(prompts)
    assert pool.over_fewest(prompts) <= 1.03
    assert pool.is_kept_busy


def test_groups_of_all_sizes_stay_whole(log: Path) -> None:
    """Groups of one to 300 rows are dealt out so that both processes have work to the end, and little is computed twice."""
    prompts = grouped(*[1, 300, 2, 7, 40, 1, 1, 1, 150, 3, 90, 12, 5, 220, 30, 1, 60, 8] * 2)
    pool = SimulatedPool(log, [4, 4])
    pool.answer(prompts)
    assert pool.over_fewest(prompts) <= 1.10
    assert pool.is_kept_busy


def test_a_group_that_is_the_whole_list_is_split(log: Path) -> None:
    """One prefix for all rows: every process gets as many rows, and computes the prefix once."""
    prompts = grouped(1500)
    pool = SimulatedPool(log, [3, 3, 3])
    pool.answer(prompts)
    assert min(pool.rows) >= 0.9 * 500
    assert max(pool.rows) <= 1.1 * 500
    assert pool.is_kept_busy
    assert pool.over_fewest(prompts) <= 1.05


def test_a_slow_process_holds_nobody_up(log: Path) -> None:
    """What waits for a slow process is taken over at the end: others have work until only what it works on is left."""
    prompts = grouped(*[100] * 10)
    pool = SimulatedPool(log, [8, 0.5])
    pool.answer(prompts)
    assert pool.is_kept_busy
    assert len(pool.simulated[1].answered) <= IN_FLIGHT + len(prompts) * 0.5 / 8.5
    assert pool.over_fewest(prompts) <= 1.25


def test_a_process_that_dies_within_a_group_loses_no_row(log: Path) -> None:
    """Its rows are answered by others and by the one in its place, and the groups after that stay whole."""
    prompts = grouped(*[50] * 20)
    pool = SimulatedPool(log, [4, 4], dies_after=120)
    pool.answer(prompts)
    assert len(pool.simulated) == 3
    assert all(pool.rows)
    assert pool.over_fewest(prompts) <= 1.25


def test_two_processes_share_out_the_groups(log: Path, tmp_path: Path) -> None:
    """With real processes, too: each group of a list of twelve is asked of one, but for one that may be split at the end."""
    # blocks of 32 tokens hold two of ours
    prompts = [Prompt(prompt.prompt_key, (("user", "x"),), prompt.token_ids * 2) for prompt in grouped(*[20] * 12)]
    diary = str(tmp_path / "diary")
    with scripted(log, 2, answer="echo", slow=0.001, in_flight=16, diary=diary) as pool:
        pool.wait_ready()
        assert len(list(pool.generate(TASK, prompts))) == 240
    asked = {(int(key, 16) // 20, pid) for what, pid, *rest in read_diary(diary) if what == "take" for key in rest}
    assert len({pid for _, pid in asked}) == 2
    assert len(asked) <= 12 + 2


def test_few_prompts_are_read_ahead() -> None:
    """Of an endless list no more are read than are given out and may wait; very long ones sooner reach that end."""

    def endless(length: int) -> Iterator[Prompt]:
        while True:
            read.append(length)
            yield Prompt(b"k", (), (1,) * (length - 1), (Continuation((1,)),))

    for length, most in [(BLOCK, 2 * AHEAD + 32), (100_000, 10 + 32 + 1)]:
        read: list[int] = []
        queue = PromptQueue(endless(length), 2, BLOCK)
        given = [len(queue.take(process, 32, is_hungry=True)) for process in (0, 1, 1, 0, 1)]
        assert all(given)
        assert len(read) - sum(given) <= most


def test_a_process_with_work_takes_nothing_from_another() -> None:
    """Rows that wait for one process are taken over by one that is soon without work, and by no other."""
    queue = PromptQueue(grouped(100), 2, BLOCK)
    assert len(queue.take(0, 10, is_hungry=True)) == 10
    assert queue.take(1, 10, is_hungry=False) == []
    assert len(queue.take(1, 10, is_hungry=True)) == 10
    assert len(queue.take(0, 100, is_hungry=True)) == 45, "half of what waited"
    assert queue.has_more
    assert len(queue.take(0, 100, is_hungry=True)) + len(queue.take(1, 100, is_hungry=True)) == 35
    assert not queue.has_more


def test_a_message_ends_with_its_group() -> None:
    """Of two groups each is taken by one process, although the first has room for rows of both."""
    queue = PromptQueue(grouped(30, 30), 2, BLOCK)
    taken = [queue.take(process, 40, is_hungry=True) for process in (0, 1)]
    assert [len(batch) for batch in taken] == [30, 30]
    assert not queue.has_more


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [((), (1, 2), 0), ((1, 2), (1, 2), 1), ((1, 2, 3), (1, 2, 4), 1), ((1, 9, 3, 4), (1, 2, 3, 4), 0),
     ((1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 7), 2), ((1, 2) * 9, (1, 2) * 5, 5)],
)  # fmt: skip
def test_prompts_share_whole_blocks(one: tuple[int, ...], other: tuple[int, ...], shared: int) -> None:
    """Blocks are counted from the beginning, whole, up to the first that differs."""
    assert shared_blocks(one, other, 2) == shared
