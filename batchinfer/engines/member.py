"""One engine process as the pool keeps account of it: what it works on, how much more it can take, when it was heard."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from batchinfer.core.records import Prompt
from batchinfer.engines.devices import Placement
from batchinfer.engines.process import EngineProcess
from batchinfer.engines.protocol import EngineInfo

LOAD_SECONDS = 7200.0  # a first load may have to download a large model, and says nothing meanwhile


@dataclass(slots=True)
class Member:
    """An engine process of a pool.

    process: the way to it.
    placement: the devices it runs on.
    loaded: what it says of itself; None while it loads.
    prompts: sent to it and not answered yet, by key.
    alone: whether it works on one suspect of a crash and on nothing else.
    is_out: whether nothing more is expected of it, since it cannot do the work and others can.
    heard: when it last sent something or was given work, by the monotonic clock.
    """

    process: EngineProcess
    placement: Placement
    loaded: EngineInfo | None = None
    prompts: dict[bytes, Prompt] = field(default_factory=dict)
    alone: bool = False
    is_out: bool = False
    heard: float = field(default_factory=time.monotonic)

    def give(self, prompts: list[Prompt], *, alone: bool = False) -> None:
        self.prompts |= {prompt.prompt_key: prompt for prompt in prompts}
        self.alone = alone
        self.heard = time.monotonic()
        self.process.send("prompts", prompts)

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
        if self.process.node is None or (self.loaded is not None and not self.prompts):
            return False
        return time.monotonic() - self.heard > (stall_seconds if self.loaded is not None else LOAD_SECONDS)

    def leave_out(self) -> list[Prompt]:
        """Ends it for good; returns what it had not answered."""
        left = list(self.prompts.values())
        self.is_out, self.loaded, self.prompts = True, None, {}
        self.process.kill()
        return left

    def stop(self) -> None:
        """Ends it: in order if it is idle, at once if not."""
        if self.is_out:
            return
        if not self.prompts and self.loaded is not None:
            self.process.wait()
        self.process.kill()
