"""How a large reply is sent."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import pytest

from batchinfer.serve.doorkeeper import Doorkeeper
from batchinfer.serve.sending import AHEAD, LARGE, Sender
from batchinfer.serve.sockets import Flow

CLIENT = "192.0.2.1:80"


class Reader:
    """A client, and what granian has of it: it reads when the test says so."""

    def __init__(self) -> None:
        self.read = 0

    def flow(self) -> Flow:
        return Flow(self.read, 100, 0.0, 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is there to close."""

    def response_bytes(self, _status: int, _headers: object, _body: bytes) -> None:
        """Takes all of it."""


@pytest.mark.parametrize("size", [LARGE, AHEAD])
def test_a_client_is_served_until_it_has_read(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when granian has all of a reply: where a worker is full, who reads is not idle."""
    doorkeeper, sender, reader = Doorkeeper(), Sender(), Reader()

    def find(_client: str) -> Any:
        return reader

    monkeypatch.setattr(sender._sockets, "find", find)

    async def sent() -> None:
        await sender.send(CLIENT, reader, (200, [], b"x" * size), doorkeeper.serving(CLIENT))
        assert doorkeeper._served == {("192.0.2.1", 80): 1}
        reader.read = size
        await asyncio.gather(*sender._deliveries)
        assert not doorkeeper._served

    asyncio.run(sent())
