"""The sockets of this worker's clients, which granian holds: who is at the other end, and how much flowed (Linux)."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

FILES = Path("/proc/self/fd")
LAST_SENT, LAST_DATA = 44, 52  # where struct tcp_info of <linux/tcp.h> has tcpi_last_data_sent and tcpi_last_data_recv
BYTES = 120  # and where tcpi_bytes_acked and tcpi_bytes_received
INFO_SIZE = 136
Address = tuple[str, int]
"""A client's host and port."""


def address_of(client: str) -> Address:
    """client: as granian has it, an IPv6 host in brackets, and one of a link with its scope, which Python leaves out."""
    host, _, port = client.rpartition(":")
    return host.strip("[]").partition("%")[0], int(port) if port.isdigit() else 0


@dataclass(frozen=True, slots=True)
class Flow:
    """What flowed over a connection.

    acked: bytes that the other side's system has taken.
    received: bytes that came.
    quiet_seconds: since the last of them came, or since the connection was made.
    unanswered_seconds: since the last were sent to it, or since the connection was made.
    """

    acked: int
    received: int
    quiet_seconds: float
    unanswered_seconds: float


class ClientSocket:
    """A client's connection, by a descriptor of its own: it stays that connection's, whatever granian does. Close it."""

    def __init__(self, descriptor: int) -> None:
        """descriptor: granian's. Raises OSError where that is no connection."""
        self._socket = socket.socket(fileno=os.dup(descriptor))
        try:
            name = self._socket.getpeername()
            self.flow()  # only of TCP
        except OSError:
            self._socket.close()
            raise
        self.address, self.port = str(name[0]), int(name[1])

    def flow(self) -> Flow:
        """Raises OSError, also where the system does not tell."""
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO_SIZE)
        if len(info) < INFO_SIZE:
            raise OSError("the system does not count bytes")
        acked, received = struct.unpack_from("=QQ", info, BYTES)
        quiet, unanswered = (struct.unpack_from("=I", info, place)[0] / 1000 for place in (LAST_DATA, LAST_SENT))
        return Flow(acked, received, quiet, unanswered)

    def cut(self) -> None:
        """Ends the connection: granian finds it closed."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Lets go of it; the connection goes on."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_files() -> int:
    """How many files and sockets this process has open."""
    return sum(1 for _ in FILES.iterdir())


def client_sockets() -> Iterator[tuple[int, ClientSocket]]:
    """(granian's descriptor, connection) of each client. Close each."""
    for number in [int(file.name) for file in FILES.iterdir()]:
        with contextlib.suppress(OSError):  # no client's, or closed meanwhile
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                yield number, ClientSocket(number)


class Sockets:
    """Finds a client's connection by its address."""

    def __init__(self) -> None:
        self._descriptors: dict[tuple[str, int], int] = {}

    def find(self, client: str) -> ClientSocket | None:
        """client: as granian has it, with the port. None where there is no such connection any more."""
        wanted = address_of(client)
        return self._at(self._descriptors.get(wanted), wanted) or self._search(wanted)

    def _at(self, descriptor: int | None, wanted: Address) -> ClientSocket | None:
        if descriptor is None:
            return None
        with contextlib.suppress(OSError):
            found = ClientSocket(descriptor)
            if (found.address, found.port) == wanted:
                return found
            found.close()
        return None

    def _search(self, wanted: Address) -> ClientSocket | None:
        self._descriptors.clear()
        for descriptor, each in client_sockets():
            self._descriptors[each.address, each.port] = descriptor
            each.close()
        return self._at(self._descriptors.get(wanted), wanted)
