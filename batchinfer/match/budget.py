"""What matching may cost: counted as matches are found, before they are gathered or written."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from batchinfer.core.http_limits import MATCH_NAMES, MATCH_PLACES, MATCH_SECONDS, MAX_MATCHES
from batchinfer.errors import UsageError

if TYPE_CHECKING:
    from batchinfer.match.names import Named

MOST_NAMED = 2 << 20  # bytes in matcher.bin of what one term names
LEAST_WRITTEN = 90  # bytes that a match takes as JSON beside its text


class ResultTooLarge(UsageError):
    """More was found than there is room for."""


class TooMuchWork(UsageError):
    """There are too many places to look at, or the time is up."""


class MatchBudget:
    """That of one request, to one matcher: all texts of a batch share it. Each method raises what is exceeded, at once.

    names: bytes in the file of what one term may name.
    held: what patterns stand for, by their number and the languages: read, and counted, once a request.
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
        self.names, self._room_for_names = names, MATCH_NAMES
        self.held: dict[tuple[int, tuple[str, ...]], Named] = {}
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

    def hold(self, number: int, ranges: tuple[str, ...], entries: Named) -> None:
        """What a pattern stands for is held until the request is answered, also where others let go of it."""
        self._room_for_names -= entries.weight
        if self._room_for_names < 0:
            raise TooMuchWork(
                f"What the terms in the texts name takes more than {MATCH_NAMES:,} bytes: match fewer or shorter texts."
            )
        self.held[number, ranges] = entries
