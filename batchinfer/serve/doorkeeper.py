"""Keeps room for clients that speak: where connections crowd, those that say nothing are closed, and then those that wait for nothing.

granian takes so many connections and no more, silent ones too, until each has been silent for its ten seconds. Here they
are looked through ten times a second, as soon as there are many.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager

from batchinfer.core.http_limits import MAX_CONNECTIONS, MAX_OF_ADDRESS
from batchinfer.serve.sockets import Address, ClientSocket, address_of, client_sockets, open_files

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
        """Closes connections that are silent, and those of an address that has too many, as far as there is a crowd."""
        if open_files() <= CROWDED:
            return
        clients = [client for _, client in client_sockets()]
        try:
            unwanted = self._unwanted(clients)
            for client in unwanted:
                client.cut()
            self.closed += len(unwanted)
        finally:
            for client in clients:
                client.close()

    def _unwanted(self, clients: list[ClientSocket]) -> list[ClientSocket]:
        """Those that are to be closed, until the crowd is gone: the silent ones first, the longest unanswered before others."""
        waiting = list[tuple[bool, float, float, ClientSocket]]()
        for client in clients:
            try:
                flow = client.flow()
            except OSError:  # it has just ended
                continue
            if self._served[client.address, client.port] <= 0:
                waiting.append((flow.received < SPOKEN, flow.unanswered_seconds, flow.quiet_seconds, client))
        waiting.sort(key=lambda each: each[:2], reverse=True)
        of_address = Counter(client.address for client in clients)
        left, unwanted = len(clients), []
        for silent, unanswered, quiet, client in waiting:
            crowd = left > CROWDED and silent and quiet >= SILENT_SECONDS
            share = of_address[client.address] > MAX_OF_ADDRESS and quiet >= (
                SILENT_SECONDS if silent else IDLE_SECONDS
            )
            full = left > FULL and unanswered >= IDLE_SECONDS
            if crowd or share or full:
                unwanted.append(client)
                left -= 1
                of_address[client.address] -= 1
        return unwanted
