"""Bodies of answers that were given last, so that what is asked for often is not made again."""

from __future__ import annotations

from threading import Lock
from typing import TypeVar

BodyKey = TypeVar("BodyKey")


class KeptBodies(dict[BodyKey, bytes]):
    """By what was asked; `get` is that of a dictionary, since it is on the way of each look-up. Threads may share one."""

    def __init__(self, room: int) -> None:
        """room: bytes that all of them may take."""
        super().__init__()
        self._room = self._left = room
        self._keeping = Lock()

    def keep(self, asked: BodyKey, body: bytes, size: int) -> None:
        """size: bytes that it takes with all that belongs to it. Where there is no room left, all others are let go of."""
        with self._keeping:
            self._left -= size
            if self._left < 0:
                self.clear()
                self._left = self._room - size
            self[asked] = body
