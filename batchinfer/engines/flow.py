"""How many requests a server gets at a time: more as long as it answers, half as many when it sheds load. Pure.

The limit doubles with each round of answers until the first time that it is too much. From then on it grows by one with each
round, and is halved each time that it is too much.
"""

from __future__ import annotations

import random

FIRST = 32
LEAST_WAIT, MOST_WAIT = 0.5, 60.0  # seconds, when the server does not say how long it wants to be left alone
MOST_GONE = 15.0  # the same where there is no server: to look for one costs it nothing
MOST_ASKED = 600.0  # seconds that it may ask for
JITTER = 0.25  # of a wait, so that many clients do not come back at once


class RequestFlow:
    """Counts what is in flight at one server. Times are seconds of any one clock.

    limit: how many may be in flight.
    in_flight: how many are.
    until: when the next may be sent.
    """

    def __init__(self, most: int, dice: random.Random) -> None:
        """most: beyond which the limit never grows. dice: for jitter."""
        self._most, self._dice = most, dice
        self.limit = float(min(FIRST, most))
        self.in_flight, self.until = 0, 0.0
        self._is_first_climb = True
        self._round = 0  # raised with each halving: what was sent before says nothing new
        self._in_vain = 0  # times in a row without an answer in between

    @property
    def is_in_vain(self) -> bool:
        """Whether a wait was over, and nothing was answered since."""
        return self._in_vain > 1

    def room(self, now: float) -> int:
        """How many may be sent now."""
        return 0 if now < self.until else max(int(self.limit) - self.in_flight, 0)

    def sent(self) -> int:
        """Counts one; returns the round that it belongs to."""
        self.in_flight += 1
        return self._round

    def returned(self) -> None:
        """One is not in flight any more."""
        self.in_flight -= 1

    def answered(self, *, grows: bool = True) -> None:
        """The server did its work. grows: whether it may have more."""
        self._in_vain = 0
        if not grows:
            return
        grown = self.limit + (1.0 if self._is_first_climb else 1.0 / self.limit)
        self.limit = min(grown, float(self._most))

    def too_much(self, round_: int) -> None:
        """What was sent in a round was more than the server can do: half as many from now on."""
        if round_ == self._round:
            self.limit, self._is_first_climb = max(self.limit / 2, 1.0), False
            self._round += 1

    def shed(self, round_: int, now: float, asked: float | None) -> None:
        """The server did not even take one of a round. Waits as long as it asked for, or if it took none in between, either."""
        self.too_much(round_)
        if asked is not None or self._in_vain:
            self.wait(now, asked)
        else:
            self._in_vain = 1

    def gone(self, now: float, asked: float | None = None) -> None:
        """There is no server. Waits before it is looked for again."""
        self.wait(now, asked, MOST_GONE)

    def wait(self, now: float, asked: float | None = None, most: float = MOST_WAIT) -> None:
        """Sends nothing for a while, longer after each failure, up to `most`. asked: seconds that the server asked for at least."""
        if now < self.until:  # of the same round: it waits already
            if asked is None:
                return
            longer = 0.0
        else:
            longer = min(LEAST_WAIT * 2 ** min(self._in_vain, 10), most)
            self._in_vain += 1
        seconds = longer if asked is None else min(max(asked, longer), MOST_ASKED)
        self.until = max(self.until, now + seconds * (1 + JITTER * self._dice.random()))
