"""Keeps room for clients that speak: where connections crowd, those that say nothing are closed, and then those that wait for nothing.

granian takes so many connections and no more, silent ones too, until each has been silent for its ten seconds. Here they
are looked through ten times a second, as soon as there are many.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from batchinfer.core.http_limits import MAX_CONNECTIONS, MAX_OF_ADDRESS
from batchinfer.serve.sockets import Address, ClientSocket, Flow, address_of, client_sockets, open_files

LOOK_SECONDS = 0.1
CROWDED = MAX_CONNECTIONS // 4  # connections; fewer are left alone
FULL = 3 * CROWDED  # connections; of more, those that wait for nothing are closed
SPOKEN = 16  # bytes; no request is shorter
SILENT_SECONDS = 0.25  # that a client may take for its first bytes where connections crowd
# That a client may be idle, or take to say what it wants, where the house is full or its address has more than its share.
IDLE_SECONDS = 1.0


class Doorkeeper:
    """Of one worker.

    closed: how many connections it closed.
    """

    def __init__(self) -> None:
        self.closed = 0
        self._served = Counter[Address]()
        # Bytes that a client had taken when it was first seen to have begun to ask, and when that was.
        self._began = dict[Address, tuple[int, float]]()

    def serving(self, client: str) -> AbstractContextManager[None]:
        """While a client waits for an answer that takes more than a moment. client: as granian has it."""
        return self._counted(address_of(client), 1)

    def awaiting(self, client: str) -> AbstractContextManager[None]:
        """While such a client has to send more before it can be answered."""
        return self._counted(address_of(client), -1)

    @contextlib.contextmanager
    def _counted(self, address: Address, by: int) -> Iterator[None]:
        """A count, since a connection's next request may begin before the one before it is put away."""
        self._count(address, by)
        try:
            yield
        finally:
            self._count(address, -by)

    def _count(self, address: Address, by: int) -> None:
        self._served[address] += by
        if not self._served[address]:
            del self._served[address]

    def look(self) -> None:
        """Closes connections that are silent, and those of an address that has too many, as far as there is a crowd.

        The event loop begins each look, and before that what was handed to it earlier: of the clients that began to ask a
        second ago, those who have asked are known to be served by now.
        """
        if open_files() <= CROWDED:
            self._began.clear()
            return
        clients = [client for _, client in client_sockets()]
        try:
            for guest in self._unwanted(clients, time.monotonic()):
                self.closed += self._close(guest)
        finally:
            for client in clients:
                client.close()

    def _unwanted(self, clients: list[ClientSocket], now: float) -> list[_Guest]:
        """Those that are to be closed, until the crowd is gone, in order. now: by the clock that only goes on."""
        guests = sorted(self._guests(clients, now), key=lambda guest: guest.rank, reverse=True)
        of_address = Counter(client.address for client in clients)
        left, unwanted = len(clients), []
        for guest in guests:
            too_many = left > CROWDED if guest.is_silent else left > FULL
            if guest.is_late and (too_many or of_address[guest.client.address] > MAX_OF_ADDRESS):
                unwanted.append(guest)
                left -= 1
                of_address[guest.client.address] -= 1
        return unwanted

    def _guests(self, clients: list[ClientSocket], now: float) -> list[_Guest]:
        """Those that wait for no answer."""
        guests, before = list[_Guest](), self._began
        self._began = {}
        for client in clients:
            try:
                flow = client.flow()
            except OSError:  # it has just ended
                continue
            address = client.address, client.port
            began = None
            if flow.quiet_seconds < flow.unanswered_seconds:  # something came since the last answer: when is not told
                acked, began = before.get(address, (-1, now))
                began = began if acked == flow.acked else now
                self._began[address] = flow.acked, began
            if not self._is_served(address):
                guests.append(_Guest(client, flow, began, now))
        return guests

    def _is_served(self, address: Address) -> bool:
        return self._served[address] > 0

    def _close(self, guest: _Guest) -> bool:
        """Whether it was closed: not where it has asked since it was looked at."""
        with contextlib.suppress(OSError):  # it has just ended
            asks = guest.began is None and guest.client.flow().received > guest.flow.received
            if not asks and not self._is_served((guest.client.address, guest.client.port)):
                guest.client.cut()
                return True
        return False


@dataclass(frozen=True, slots=True)
class _Guest:
    """A connection that waits for no answer.

    began: when it was first seen that it had begun to ask; None where nothing came since the last answer.
    now: when it was looked at.
    """

    client: ClientSocket
    flow: Flow
    began: float | None
    now: float

    @property
    def is_silent(self) -> bool:
        return self.flow.received < SPOKEN

    @property
    def seconds(self) -> float:
        """For how long it has been idle, or asked without an end."""
        return self.flow.unanswered_seconds if self.began is None else self.now - self.began

    @property
    def is_late(self) -> bool:
        """Whether it had its time to say what it wants."""
        return (self.is_silent and self.flow.quiet_seconds >= SILENT_SECONDS) or self.seconds >= IDLE_SECONDS

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Silent ones go first, then idle ones, then those who ask without an end; the longest before others."""
        return self.is_silent, self.began is None, self.seconds
