"""Large replies on their way: bounded in bytes, and cut off where a client does not read.

granian takes as much of a reply as it is given and keeps it until the client has read it. So a large one is given in
pieces, as fast as the client's system takes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from batchinfer.core.http_limits import MAX_REPLY, MAX_UNDER_WAY, READ_SECONDS, STALL_SECONDS
from batchinfer.serve.problems import Problem, Reply
from batchinfer.serve.sockets import ClientSocket, Sockets

LARGE = 64 << 10  # bytes of a reply's body; smaller ones are given as a whole
AHEAD = 256 << 10  # bytes that granian may have and the client's system not yet
SHORTEST, LONGEST = 0.001, 0.05  # seconds between two looks at how much the client has taken
BUSY = "Too many large replies are being read: ask again in a moment."
AGAIN = (("retry-after", "1"),)


class TooSlow(Exception):
    """A client does not read its reply."""


class Sender:
    """Sends one worker's replies.

    cut: how many clients were cut off since they did not read.
    """

    def __init__(self) -> None:
        self.cut = 0
        self._under_way = 0
        self._sockets = Sockets()
        self._deliveries: set[asyncio.Task[None]] = set()

    def need_room(self, size: int = MAX_REPLY) -> None:
        """Before a reply is made that may be so large. Raises Problem."""
        if self._under_way + size > MAX_UNDER_WAY:
            raise Problem("busy", BUSY, AGAIN)

    def admitted(self, reply: Reply) -> Reply:
        """The reply to a single look-up, or a refusal where too many large ones are under way."""
        size = len(reply[2])
        if size >= LARGE and self._under_way and self._under_way + size > MAX_UNDER_WAY:
            return Problem("busy", BUSY, AGAIN).answer()
        return reply

    @contextlib.contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """While bytes of a reply are held."""
        self._under_way += size
        try:
            yield
        finally:
            self._under_way -= size

    async def send(self, client: str, protocol: Any, reply: Reply, reading: AbstractContextManager[None]) -> None:
        """Sends a reply with a body: returns when granian has all of it, or the client is cut off.

        reading: entered while the client reads a large one.
        """
        status, headers, body = reply
        connection = self._sockets.find(client) if len(body) >= LARGE else None
        if connection is None:
            protocol.response_bytes(status, headers, body)
            return
        if not any(name == "content-length" for name, _ in headers):
            headers = [*headers, ("content-length", str(len(body)))]
        given = asyncio.Event()
        task = asyncio.create_task(self._deliver(protocol, (status, headers, body), connection, given, reading))
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)
        await given.wait()

    async def _deliver(
        self,
        protocol: Any,
        reply: Reply,
        connection: ClientSocket,
        given: asyncio.Event,
        held: AbstractContextManager[None],
    ) -> None:
        """Holds the room that a reply takes until the client has read it, or is cut off. given: set when granian has all of it."""
        status, headers, body = reply
        with held, connection, self.holding(len(body)):
            try:
                reading = _ClientReading(connection)
                if len(body) <= AHEAD:
                    protocol.response_bytes(status, headers, body)
                else:
                    await _send_pieces(protocol.response_stream(status, headers), body, reading)
                given.set()
                await reading.until(len(body))
            except TooSlow:
                self.cut += 1
                connection.cut()
            except Exception:  # noqa: BLE001 - granian's, of a client that is gone
                connection.cut()
            finally:
                given.set()

    def close(self) -> None:
        """Looks no more at who reads."""
        for task in self._deliveries:
            task.cancel()


async def _send_pieces(stream: Any, body: bytes, reading: _ClientReading) -> None:
    """Raises TooSlow, or OSError where the connection is gone."""
    view = memoryview(body)
    for start in range(0, len(body), LARGE):
        await stream.send_bytes(bytes(view[start : start + LARGE]))
        await reading.until(min(start + LARGE, len(body)) - AHEAD)


class _ClientReading:
    """How a client reads."""

    def __init__(self, connection: ClientSocket) -> None:
        self._connection = connection
        self._first = self._taken = connection.flow().acked
        self._began = self._moved = time.monotonic()

    async def until(self, size: int) -> None:
        """Until the client has taken so many bytes. Raises TooSlow."""
        pause = SHORTEST
        while (taken := self._connection.flow().acked) - self._first < size:
            now = time.monotonic()
            if taken > self._taken:
                self._taken, self._moved, pause = taken, now, SHORTEST
            if now > self._moved + STALL_SECONDS or now > self._began + READ_SECONDS:
                raise TooSlow
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST)
