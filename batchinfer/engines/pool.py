"""The engine as the run sees it: one or more engine processes, fed from one queue, watched and rebuilt."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Self

from batchinfer.core.cost import Devices
from batchinfer.core.records import Failure, Generation, Info, Prompt
from batchinfer.engines.devices import Placement
from batchinfer.engines.member import Member
from batchinfer.engines.process import EngineEnded, EngineLost, Launch, launch_here
from batchinfer.engines.protocol import EngineConfig, EngineInfo, NodeWork, Task
from batchinfer.engines.sharing import PromptQueue
from batchinfer.engines.vllm import block_size
from batchinfer.errors import CutShort, ModelError

VLLM_DRIVER = "batchinfer.engines.vllm:VllmDriver"
BATCH = 32  # prompts per message: few enough that a process starts on the first while the rest is being made
MAX_DEATHS = 5  # in a row, without one answer in between
MAX_LOST = 10  # machines for each engine, in a row
MAX_LOSSES = 4  # machines that a prompt was on when they were lost


class EnginePool:
    """Engine processes on `placements`. It is a `protocol.Engine`.

    config: what each of them loads.
    placements: the devices of each.
    log: file for all that the processes print.
    driver: module:class of what runs in each process.
    launch: starts a process; on this machine unless said otherwise.
    stall_seconds: a process that is silent for longer while it has work counts as hung.
    info: called with a sentence when a process had to be replaced.
    meanwhile: called again and again while no process is loaded; what it raises ends that.
    least: how many processes must be loaded before work begins; all, unless said otherwise.
    waited: seconds for which the devices were waited for.
    """

    def __init__(
        self,
        config: EngineConfig,
        placements: list[Placement],
        log: Path,
        *,
        driver: str = VLLM_DRIVER,
        launch: Launch = launch_here,
        stall_seconds: float = 600.0,
        info: Info = lambda _: None,
        meanwhile: Callable[[], object] = lambda: None,
        least: int | None = None,
        waited: float = 0.0,
    ) -> None:
        self._meanwhile, self._least = meanwhile, len(placements) if least is None else least
        self._waited, self._started = waited, 0.0  # by the monotonic clock, when all were started
        self._placed: float | None = None  # by the same, when the first of them had a place
        self._config, self._placements, self._log = config, placements, log
        self._driver, self._launch, self._stall_seconds, self._info = driver, launch, stall_seconds, info
        self._members: list[Member] = []
        self._task: Task | None = None
        self._suspects: deque[Prompt] = deque()  # were under way when a process died
        self._returned: deque[Prompt] = deque()  # were under way when a machine was lost
        self._losses = Counter[bytes]()  # how often, by key
        self._deaths = Counter[bool]()  # since the last answer; of engines alone, and with their machines
        self._nodes: dict[str, NodeWork] = {}

    @property
    def devices(self) -> Devices:
        placed = [member for member in self._members if member.process.node is not None and not member.is_out]
        if self._placements and self._placements[0].is_cpu:
            return Devices("cpu", len({member.process.node for member in placed}))
        return Devices("gpu", sum(len(member.placement.gpus) for member in placed))

    @property
    def nodes(self) -> Mapping[str, NodeWork]:
        return self._nodes

    @property
    def waited(self) -> float:
        return self._waited + (self._placed or time.monotonic()) - self._started

    @property
    def _loaded(self) -> int:
        """How many processes can answer."""
        return sum(member.loaded is not None for member in self._members)

    def start(self) -> None:
        self._members = [self._spawn(placement) for placement in self._placements]
        self._started = time.monotonic()
        self._note_places()

    def _note_places(self) -> None:
        """When the first process had a place."""
        if self._placed is None and any(member.process.node is not None for member in self._members):
            self._placed = time.monotonic()

    def wait_ready(self) -> EngineInfo:
        while self._loaded < self._least:
            for _ in self._listen():
                pass
            self._meanwhile()
        return next(member.loaded for member in self._members if member.loaded is not None)

    def generate(self, task: Task, prompts: Iterable[Prompt]) -> Iterator[Generation | Failure]:
        self._forget()
        while any(member.prompts for member in self._members):  # of a call that was not read to its end
            deque(self._listen(), maxlen=0)
            self._forget()
        self._task = task
        for member in self._members:
            if member.loaded is not None:  # the others get it when they are
                member.process.send("task", task)
        on_cpu = self._placements[0].is_cpu
        queue = PromptQueue(prompts, len(self._members), block_size(self._config.options, on_cpu=on_cpu))
        while True:
            self._feed(queue)
            waits = queue.has_more or self._suspects or self._returned
            if not (waits or any(member.prompts for member in self._members)):
                return
            if not self._loaded:
                self._meanwhile()
            yield from self._listen()

    def _forget(self) -> None:
        """Drops what is to be asked again: nobody waits for it."""
        self._suspects.clear()
        self._returned.clear()
        self._losses.clear()

    def _feed(self, queue: PromptQueue) -> None:
        """Fills the processes. Suspects of a crash go to one of them, each alone, and to any that has nothing else to do."""
        tester = self._tester()
        while self._feed_one(queue, tester):
            pass
        for member in self._members:
            if self._suspects and member.loaded is not None and not member.prompts:
                member.give([self._suspects.popleft()], alone=True)

    def _tester(self) -> Member | None:
        """The process that gets nothing else while there are suspects: one that works on them, or will soonest be free to."""
        if not self._suspects:
            return None
        loaded = [member for member in self._members if member.loaded is not None]
        return min(loaded, key=lambda member: (not member.alone, len(member.prompts)), default=None)

    def _feed_one(self, queue: PromptQueue, tester: Member | None) -> bool:
        """Gives prompts to the idlest process that can have any: a short list is to keep all of them busy."""
        for number, member in sorted(enumerate(self._members), key=lambda entry: -entry[1].room()):
            room = min(member.room(), BATCH)
            if room <= 0 or member is tester:
                continue
            again = [self._returned.popleft() for _ in range(min(room, len(self._returned)))]
            if batch := again or queue.take(number, room, is_hungry=member.is_hungry()):
                member.give(batch)
                return True
        return False

    def _listen(self) -> Iterator[Generation | Failure]:
        """Waits up to a second for the processes; yields what they finished, replaces those that died."""
        members = [member for member in self._members if not member.is_out]
        ready = wait([member.process.ready for member in members], timeout=1.0)
        for member in members:
            if member.process.ready in ready:
                yield from self._read(member)
            elif member.overdue(self._stall_seconds):
                yield from self._replace(member, f"did not respond for {time.monotonic() - member.heard:.0f} s")

    def _read(self, member: Member) -> Iterator[Generation | Failure]:
        try:
            kind, content = member.process.receive()
        except EngineEnded as ended:
            yield from self._replace(member, str(ended), is_lost=isinstance(ended, EngineLost))
            return
        member.heard = time.monotonic()
        self._note_places()
        if kind == "failed":
            if not self._goes_on_without(member, content):
                raise ModelError(f"{content} What the engine printed is in {self._log}.")
            return
        if kind == "ready":
            self._welcome(member, content)
        elif kind == "results":
            self._count(member, content)
            yield from content

    def _welcome(self, member: Member, info: EngineInfo) -> None:
        """A process is loaded. One of another version than the others is left out: a list is answered by one."""
        other = next((each for each in self._members if each.loaded and each.loaded.version != info.version), None)
        if other is not None and other.loaded is not None:
            said = (
                f"The node {member.process.node} has {info.version}, and {other.process.node} {other.loaded.version}: "
                "install the same version on all."
            )
            if not self._goes_on_without(member, said):
                raise ModelError(said)
            return
        member.loaded = info
        if self._task is not None:
            member.process.send("task", self._task)

    def _count(self, member: Member, results: Sequence[Generation | Failure]) -> None:
        """Notes what a process answered."""
        for result in results:
            member.prompts.pop(result.prompt_key or b"", None)
            self._deaths.clear()
        if results and member.process.node is not None:
            self._nodes.setdefault(member.process.node, NodeWork()).rows += len(results)

    def _replace(self, member: Member, what: str, *, is_lost: bool = False) -> Iterator[Failure]:
        """Starts a new process in place of one that died; a prompt that it worked on alone is to blame.

        is_lost: with its machine, which may go for any reason, so that a prompt is to blame only for the last of several.
        """
        member.process.kill()
        is_loading = member.loaded is None and not is_lost
        if is_loading and self._goes_on_without(member, f"The engine {what} while it loaded the model."):
            return
        self._deaths[is_lost] += 1
        most = MAX_LOST * len(self._members) if is_lost else MAX_DEATHS
        if is_loading or self._deaths[is_lost] > most:
            when = "while it loaded the model" if is_loading else f"{self._deaths[is_lost]} times in a row"
            raise CutShort(f"The engine {what} {when}. What it printed is in {self._log}; run the job again to resume.")
        self._info(f"The engine {what}; it is started again. What it printed is in {self._log}.")
        self._members[self._members.index(member)] = self._spawn(member.placement)
        if is_lost:
            self._losses.update(member.prompts.keys())
        for prompt_key, prompt in member.prompts.items():
            if is_lost and self._losses[prompt_key] == 1:
                self._returned.append(prompt)
            elif member.alone and (not is_lost or self._losses[prompt_key] >= MAX_LOSSES):
                detail = f"The engine {what} each time it worked on this prompt."
                yield Failure(prompt_key, "engine", "engine_died", detail)
            else:
                self._suspects.append(prompt)

    def _goes_on_without(self, member: Member, said: str) -> bool:
        """Leaves out a process that cannot do the work, if that may begin with fewer and others load or are loaded."""
        others = [each for each in self._members if each is not member and not each.is_out]
        if self._least == len(self._placements) or all(each.process.node is None for each in others):
            return False
        self._info(f"{said} The others go on without it. What it printed is in {self._log}.")
        (self._suspects if member.alone else self._returned).extend(member.leave_out())
        return True

    def _spawn(self, placement: Placement) -> Member:
        return Member(self._launch(self._driver, self._config, placement, self._log), placement)

    def committed(self, keys: Iterable[bytes]) -> None:
        """Nothing is kept of what was asked."""

    def close(self) -> None:
        for member in self._members:
            member.process.send("stop")
        for member in self._members:
            member.stop()
        self._members = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
