"""What matching may cost: counted as matches are found, before they are gathered or written."""

from __future__ import annotations

import time

from batchinfer.core.http_limits import MATCH_PLACES, MATCH_SECONDS, MAX_MATCHES
from batchinfer.errors import UsageError

MOST_NAMED = 2 << 20  # bytes in matcher.bin of what one term names
MOST_READ = 32 << 20  # of what is read of that for one request; far more than all words of a body name
LEAST_WRITTEN = 90  # bytes that a match takes as JSON beside its text


class ResultTooLarge(UsageError):
    """More was found than there is room for."""


class TooMuchWork(UsageError):
    """There are too many places to look at, or the time is up."""


class MatchBudget:
    """That of one request: all texts of a batch share it. Each method raises what is exceeded, at once.

    names: bytes in the file of what one term may name.
    """

    def __init__(
        self,
        *,
        room: int = MAX_MATCHES,
        places: int = MATCH_PLACES,
        seconds: float = MATCH_SECONDS,
        names: int = MOST_NAMED,
    ) -> None:
        """room: bytes of the matches as JSON. places: where terms stand, reported or not. seconds: from now on.

        names: bytes in the file of what one term names.
        """
        self.names, self._to_read = names, MOST_READ
        self._room, self._most_room = room, room
        self._places, self._most_places = places, places
        self._seconds, self._deadline = seconds, time.monotonic() + seconds

    def spend_places(self, count: int) -> None:
        self._places -= count
        if self._places < 0:
            raise TooMuchWork(
                f"Terms occur at more than {self._most_places:,} places of the texts: match fewer or shorter texts."
            )

    def check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise TooMuchWork(f"Matching takes more than {self._seconds:g} s: match fewer or shorter texts.")

    def spend_room(self, size: int) -> None:
        """size: bytes of a match as JSON."""
        self._room -= size
        if self._room < 0:
            raise ResultTooLarge(
                f"The matches would take more than {self._most_room:,} bytes: match fewer or shorter texts."
            )

    def need_room(self, size: int) -> None:
        """The same, without spending it: for what is not written yet."""
        if size > self._room:
            self.spend_room(size)

    def need_names(self, size: int) -> None:
        """size: bytes in the file of what a term names."""
        if size > self.names:
            raise ResultTooLarge(
                f"A term in the text names more than a reply has room for, {self.names:,} bytes: "
                "publish with match.generic: drop."
            )

    def spend_names(self, size: int) -> None:
        """size: of what a term names, once it is read: all of it may be held until the request is answered."""
        self._to_read -= size
        if self._to_read < 0:
            raise TooMuchWork(
                f"What the terms in the texts name takes more than {MOST_READ:,} bytes: match fewer or shorter texts."
            )
