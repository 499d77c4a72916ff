"""The engine as the run sees it: one or more child processes, fed from one queue, watched and rebuilt."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from batchinfer.core.cost import Devices
from batchinfer.core.records import Failure, Generation, Info, Prompt
from batchinfer.engines import child
from batchinfer.engines.devices import Placement, devices_of
from batchinfer.engines.protocol import EngineConfig, EngineInfo, Task
from batchinfer.engines.sharing import PromptQueue
from batchinfer.engines.vllm import block_size
from batchinfer.errors import ModelError, Stopped

VLLM_DRIVER = "batchinfer.engines.vllm:VllmDriver"
BATCH = 32  # prompts per message: few enough that a process starts on the first while the rest is being made
MAX_DEATHS = 5  # in a row, without one answer in between
STOP_SECONDS = 5.0
LOAD_SECONDS = 7200.0  # a first load may have to download a large model, and says nothing meanwhile


@dataclass(slots=True)
class _Member:
    """One child process and what it is working on.

    process: the child.
    pipe: our end of its pipe.
    placement: the devices it runs on.
    loaded: what it says of itself; None while it loads.
    prompts: sent to it and not answered yet, by key.
    alone: whether it works on one suspect of a crash and on nothing else.
    heard: when it last sent something or was given work, by the monotonic clock.
    """

    process: subprocess.Popen[bytes]
    pipe: Connection
    placement: Placement
    loaded: EngineInfo | None = None
    prompts: dict[bytes, Prompt] = field(default_factory=dict)
    alone: bool = False
    heard: float = field(default_factory=time.monotonic)

    def send(self, kind: str, content: Any = None) -> None:
        with contextlib.suppress(OSError):  # it died: reading from it will say so
            self.pipe.send((kind, content))

    def give(self, prompts: list[Prompt], *, alone: bool = False) -> None:
        self.prompts |= {prompt.prompt_key: prompt for prompt in prompts}
        self.alone = alone
        self.heard = time.monotonic()
        self.send("prompts", prompts)

    def room(self) -> int:
        """The number of prompts that it can take now."""
        if self.loaded is None or (self.alone and self.prompts):
            return 0
        return self.loaded.max_in_flight - len(self.prompts)

    def is_hungry(self) -> bool:
        """Whether half of those that wait within it are gone, so that it is soon without work."""
        return self.loaded is not None and 4 * self.room() >= self.loaded.max_in_flight

    def overdue(self, stall_seconds: float) -> bool:
        """Whether it has been silent for longer than its work explains."""
        if self.loaded is not None and not self.prompts:
            return False
        return time.monotonic() - self.heard > (stall_seconds if self.loaded is not None else LOAD_SECONDS)

    def kill(self) -> None:
        """Ends it and the processes that vLLM started below it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.pipe.close()

    def wait(self) -> int | None:
        """Its exit code, once it has ended by itself; None if it has not soon."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(STOP_SECONDS)
        return None


class EnginePool:
    """Engine processes on `placements`. It is a `protocol.Engine`.

    config: what each of them loads.
    placements: the devices of each.
    log: file for all that the processes print.
    driver: module:class of what runs in each process.
    stall_seconds: a process that is silent for longer while it has work counts as hung.
    info: called with a sentence when a process had to be replaced.
    """

    def __init__(
        self,
        config: EngineConfig,
        placements: list[Placement],
        log: Path,
        *,
        driver: str = VLLM_DRIVER,
        stall_seconds: float = 600.0,
        info: Info = lambda _: None,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        """meanwhile: called again and again while it loads; what it raises ends that."""
        self._meanwhile = meanwhile
        self._config, self._placements, self._log = config, placements, log
        self._driver, self._stall_seconds, self._info = driver, stall_seconds, info
        self._members: list[_Member] = []
        self._task: Task | None = None
        self._suspects: deque[Prompt] = deque()  # were under way when a process died
        self._deaths = 0

    @property
    def devices(self) -> Devices:
        return devices_of(self._placements)

    def start(self) -> None:
        self._members = [self._spawn(placement) for placement in self._placements]

    def wait_ready(self) -> EngineInfo:
        while any(member.loaded is None for member in self._members):
            for _ in self._listen():
                pass
            self._meanwhile()
        return next(member.loaded for member in self._members if member.loaded is not None)

    def generate(self, task: Task, prompts: Iterable[Prompt]) -> Iterator[Generation | Failure]:
        self._suspects.clear()
        while any(member.prompts for member in self._members):  # of a call that was not read to its end
            deque(self._listen(), maxlen=0)
            self._suspects.clear()
        self._task = task
        for member in self._members:
            member.send("task", task)
        on_cpu = self._placements[0].is_cpu
        queue = PromptQueue(prompts, len(self._members), block_size(self._config.options, on_cpu=on_cpu))
        while True:
            self._feed(queue)
            if not (queue.has_more or self._suspects or any(member.prompts for member in self._members)):
                return
            yield from self._listen()

    def _feed(self, queue: PromptQueue) -> None:
        """Fills the processes. Suspects of a crash go first, each alone."""
        for member in self._members:
            if self._suspects and member.loaded is not None and not member.prompts:
                member.give([self._suspects.popleft()], alone=True)
        while not self._suspects and self._feed_one(queue):
            pass

    def _feed_one(self, queue: PromptQueue) -> bool:
        """Gives prompts to the idlest process that can have any: a short list is to keep all of them busy."""
        for number, member in sorted(enumerate(self._members), key=lambda entry: -entry[1].room()):
            room = min(member.room(), BATCH)
            if room > 0 and (batch := queue.take(number, room, is_hungry=member.is_hungry())):
                member.give(batch)
                return True
        return False

    def _listen(self) -> Iterator[Generation | Failure]:
        """Waits up to a second for the processes; yields what they finished, replaces those that died."""
        ready = wait([member.pipe for member in self._members], timeout=1.0)
        for member in list(self._members):
            if member.pipe in ready:
                yield from self._read(member)
            elif member.overdue(self._stall_seconds):
                yield from self._replace(member, f"did not respond for {time.monotonic() - member.heard:.0f} s")

    def _read(self, member: _Member) -> Iterator[Generation | Failure]:
        try:
            kind, content = member.pipe.recv()
        except (EOFError, OSError):
            yield from self._replace(member, f"died (exit code {member.wait()})")
            return
        member.heard = time.monotonic()
        if kind == "failed":
            raise ModelError(f"{content} What the engine printed is in {self._log}.")
        if kind == "ready":
            member.loaded = content
            if self._task is not None:
                member.send("task", self._task)
            return
        for result in content:
            member.prompts.pop(result.prompt_key, None)
            self._deaths = 0
        yield from content

    def _replace(self, member: _Member, what: str) -> Iterator[Failure]:
        """Starts a new process in place of one that died; a prompt that it worked on alone is to blame."""
        member.kill()
        self._deaths += 1
        if member.loaded is None or self._deaths > MAX_DEATHS:
            when = "while it loaded the model" if member.loaded is None else f"{self._deaths} times in a row"
            raise Stopped(f"The engine {what} {when}. What it printed is in {self._log}; run the job again to resume.")
        self._info(f"The engine {what}; it is started again. What it printed is in {self._log}.")
        self._members[self._members.index(member)] = self._spawn(member.placement)
        if member.alone:
            for prompt_key in member.prompts:
                yield Failure(
                    prompt_key, "engine", "engine_died", f"The engine {what} each time it worked on this prompt."
                )
        else:
            self._suspects.extend(member.prompts.values())

    def _spawn(self, placement: Placement) -> _Member:
        # A plain process and not one of multiprocessing's: it shares no clean-up with ours that a kill would upset.
        # In a session of its own the terminal's Ctrl-C does not reach it.
        ours, theirs = multiprocessing.Pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # nor before it has that session
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", child.__name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        theirs.close()
        member = _Member(process, ours, placement)
        member.send("load", (self._driver, self._config, placement, self._log))
        return member

    def close(self) -> None:
        for member in self._members:
            member.send("stop")
        for member in self._members:
            if not member.prompts and member.loaded is not None:
                member.wait()
            member.kill()
        self._members = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
