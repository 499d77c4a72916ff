"""Keeps room for clients that speak: where connections crowd, those that say nothing are closed.

granian takes so many connections and no more, silent ones too, until each has been silent for its ten seconds. Here they
are looked through ten times a second, as soon as there are many.
"""

from __future__ import annotations

from collections import Counter

from batchinfer.core.http_limits import MAX_CONNECTIONS, MAX_OF_ADDRESS
from batchinfer.serve.sockets import ClientSocket, client_sockets, open_files

LOOK_SECONDS = 0.1
CROWDED = MAX_CONNECTIONS // 4  # connections; fewer are left alone
SPOKEN = 16  # bytes; no request is shorter
SILENT_SECONDS = 0.25  # that a client may take for its first bytes where connections crowd
IDLE_SECONDS = 1.0  # that a client beyond its address's share may be idle


class Doorkeeper:
    """Of one worker.

    closed: how many connections it closed.
    """

    def __init__(self) -> None:
        self.closed = 0

    def look(self) -> None:
        """Closes connections that are silent, and those of an address that has too many, as far as there is a crowd."""
        if open_files() <= CROWDED:
            return
        clients = [client for _, client in client_sockets()]
        try:
            unwanted = _unwanted(clients)
            for client in unwanted:
                client.cut()
            self.closed += len(unwanted)
        finally:
            for client in clients:
                client.close()


def _unwanted(clients: list[ClientSocket]) -> list[ClientSocket]:
    """Those that are to be closed: the longest silent ones first, until the crowd is gone."""
    quiet = list[tuple[bool, float, ClientSocket]]()
    for client in clients:
        try:
            flow = client.flow()
        except OSError:  # it has just ended
            continue
        quiet.append((flow.received < SPOKEN, flow.quiet_seconds, client))
    quiet.sort(key=lambda each: each[:2], reverse=True)
    of_address = Counter(client.address for client in clients)
    left, unwanted = len(clients), []
    for silent, seconds, client in quiet:
        crowd = left > CROWDED and silent and seconds >= SILENT_SECONDS
        share = of_address[client.address] > MAX_OF_ADDRESS and seconds >= (SILENT_SECONDS if silent else IDLE_SECONDS)
        if crowd or share:
            unwanted.append(client)
            left -= 1
            of_address[client.address] -= 1
    return unwanted
