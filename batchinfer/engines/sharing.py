"""Which engine process gets which prompts: those that begin alike stay with one, as long as there is work for all."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from batchinfer.core.records import Prompt

AHEAD = 128  # prompts for each process that may be read before one can take them
AHEAD_TOKENS = 1_000_000  # of all of them together: about 40 MB


@dataclass(slots=True)
class _Lane:
    """What was read for one process, and not given to it yet.

    waiting: (prompt, blocks that it shares with the one before it in the list), in the list's order.
    depth: the blocks of the last that was given.
    """

    waiting: deque[tuple[Prompt, int]] = field(default_factory=deque)
    depth: int = 0

    def pop(self, most: int) -> list[Prompt]:
        """The next prompts, up to where fewer blocks are shared than so far: another process may have what follows."""
        batch = list[Prompt]()
        while self.waiting and len(batch) < most and not (batch and self.waiting[0][1] < self.depth):
            prompt, self.depth = self.waiting.popleft()
            batch.append(prompt)
        return batch

    def cut(self, position: int) -> deque[tuple[Prompt, int]]:
        """Takes away what waits from a position on."""
        taken = deque(itertools.islice(self.waiting, position, None))
        self.waiting = deque(itertools.islice(self.waiting, position))
        return taken


class PromptQueue:
    """Prompts in the order of what they share, read as they are needed and dealt out to the engine processes.

    Each process follows the list from where it began. One that has come to an end begins again where no other has been yet,
    at the prompt that shares the least with the one before it: so groups of prompts that begin alike stay whole. A group
    is split only where no other one begins within the prompts that may be read ahead, as in a list's last rows.
    """

    def __init__(self, prompts: Iterable[Prompt], processes: int, block: int) -> None:
        """processes: how many there are. block: tokens that prefix caching shares as a whole."""
        self._prompts, self._block = iter(prompts), block
        self._lanes = [_Lane() for _ in range(processes)]
        self._reader: int | None = None  # the process for which the list is read on
        self._last: tuple[int, ...] = ()  # token ids of the prompt that was read last
        self._rows = self._tokens = 0  # that wait in the lanes
        self._is_read = False

    @property
    def has_more(self) -> bool:
        """Whether prompts are left, as far as is known; only reading can tell that the list is at its end."""
        return not self._is_read or self._rows > 0

    def take(self, process: int, most: int, *, is_hungry: bool) -> list[Prompt]:
        """At most so many prompts for a process, by its number; none where all that is left is others' to do.

        is_hungry: whether it is soon without work, so that it may take over what waits for another; when the list is read
            to its end it may in any case.
        """
        if len(self._lanes) == 1:
            return self._next(most)
        if self._reader is None:
            self._reader = process
        lane = self._lanes[process]
        if self._reader == process:
            while len(lane.waiting) < most and self._read():
                pass
        if not lane.waiting and (is_hungry or self._is_read):
            self._take_over(lane, process)
        batch = lane.pop(most)
        self._rows -= len(batch)
        self._tokens -= sum(map(_tokens, batch))
        return batch

    def _next(self, most: int) -> list[Prompt]:
        """For a process that has the list to itself."""
        batch = [] if self._is_read else list(itertools.islice(self._prompts, most))
        self._is_read = len(batch) < most
        return batch

    def _read(self) -> bool:
        """Reads a prompt into the lane of the process that is to have it; False at the list's end."""
        prompt = None if self._is_read or self._reader is None else next(self._prompts, None)
        if prompt is None or self._reader is None:
            self._is_read = True
            return False
        shared = shared_blocks(self._last, prompt.token_ids, self._block)
        self._lanes[self._reader].waiting.append((prompt, shared))
        self._last = prompt.token_ids
        self._rows += 1
        self._tokens += _tokens(prompt)
        return True

    def _take_over(self, lane: _Lane, process: int) -> None:
        """Fills an empty lane with the end of another, cut where the least is shared, and near the middle among equals."""
        while self._rows < AHEAD * len(self._lanes) and self._tokens < AHEAD_TOKENS and self._read():
            pass
        cuts = (
            (shared, -len(other.waiting), abs(position - len(other.waiting) // 2), number, position)
            for number, other in enumerate(self._lanes)
            for position, (_, shared) in enumerate(other.waiting)
        )
        if (best := min(cuts, default=None)) is None:
            return
        *_, number, position = best
        lane.waiting = self._lanes[number].cut(position)
        if self._reader == number:
            self._reader = process


def shared_blocks(one: tuple[int, ...], other: tuple[int, ...], block: int) -> int:
    """How many whole blocks two prompts share at their beginning.

    Looks at a few blocks only, as if those before an equal one were equal; where they are not it may say too many.
    """

    def differs(number: int) -> bool:
        part = slice(number * block, (number + 1) * block)
        return one[part] != other[part]

    count = min(len(one), len(other)) // block
    return 0 if count == 0 or differs(0) else bisect_left(range(count), x=True, lo=1, key=differs)


def _tokens(prompt: Prompt) -> int:
    return len(prompt.token_ids) + sum(len(continuation.token_ids) for continuation in prompt.continuations)
