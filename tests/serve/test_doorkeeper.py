"""Who is closed where connections crowd, and who is not."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import pytest

from batchinfer.serve.doorkeeper import CROWDED, FULL, IDLE_SECONDS, Doorkeeper
from batchinfer.serve.sockets import ClientSocket, Flow
from tests.factories import LENIENT, imports_job
from tests.serving import Server, eventually, serving

ADDRESSES = 8  # of one machine, so that none has more than its share
LIVEZ = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
HEADERS = b"POST /v1/jobs/shop/lookup HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n"


@dataclass(frozen=True)
class Client:
    """A connection that is as it says."""

    port: int
    said: Flow
    address: str = "192.0.2.1"

    def flow(self) -> Flow:
        return self.said


def unwanted(doorkeeper: Doorkeeper, clients: list[Client]) -> list[int]:
    """The ports of those that it would close, in order. All addresses differ."""
    each = [Client(client.port, client.said, f"address {client.port}") for client in clients]
    return [client.port for client in doorkeeper._unwanted(cast("list[ClientSocket]", each))]


def asking(number: int, unanswered: float = 0.0) -> Client:
    """One that spoke a moment ago."""
    return Client(number, Flow(1000, 1000, 0.0, unanswered))


def test_who_is_left_unanswered_goes_where_the_house_is_full() -> None:
    """The longest first, whatever they say meanwhile, and no more of them than is needed."""
    busy = [asking(number) for number in range(FULL - 1)]
    idle = [asking(FULL + number, IDLE_SECONDS + number) for number in range(3)]
    assert unwanted(Doorkeeper(), [*busy, *idle]) == [FULL + 2, FULL + 1]
    assert unwanted(Doorkeeper(), [*busy[2:], *idle]) == []


def test_the_silent_go_first() -> None:
    """And where there is a crowd already."""
    silent = Client(9, Flow(0, 0, IDLE_SECONDS, IDLE_SECONDS))
    assert unwanted(Doorkeeper(), [*(asking(100 + number) for number in range(CROWDED)), silent]) == [9]
    idle = [asking(100 + number, 5.0) for number in range(FULL)]
    assert unwanted(Doorkeeper(), [*idle, silent]) == [9]


def test_who_waits_for_an_answer_stays() -> None:
    """However long it takes; but not while it does not send what it has to."""
    doorkeeper = Doorkeeper()
    clients = [asking(number) for number in range(FULL)]
    waits = Client(5000, Flow(0, 500, 3.0, 3.0), "address 5000")
    with doorkeeper.serving("[address 5000]:5000"):
        assert unwanted(doorkeeper, [*clients, waits]) == []
        with doorkeeper.awaiting("[address 5000]:5000"):
            assert unwanted(doorkeeper, [*clients, waits]) == [5000]
        assert unwanted(doorkeeper, [*clients, waits]) == []
    assert unwanted(doorkeeper, [*clients, waits]) == [5000]


def test_a_connection_may_wait_for_two_answers() -> None:
    """Its next request begins before the one before it is put away: it waits until both are, and nobody for ever."""
    doorkeeper = Doorkeeper()
    first, second = doorkeeper.serving("192.0.2.1:80"), doorkeeper.serving("192.0.2.1:80")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert doorkeeper._served == {("192.0.2.1", 80): 1}
    more = doorkeeper.awaiting("192.0.2.1:80")
    more.__enter__()
    second.__exit__(None, None, None)
    more.__exit__(None, None, None)
    assert not doorkeeper._served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One worker, which must live to the end."""
    world = imports_job(tmp_path_factory.mktemp("world"), {"id": ["a"]}, gate=LENIENT)
    world.take_in({"id": ["a"], "prediction": ["x"]})
    world.publish()
    with serving(world.data.root, tmp_path_factory.mktemp("server")) as server:
        workers = server.children()
        yield server
        assert server.children() == workers
        assert "Traceback" not in server.log


@pytest.mark.parametrize("said", [HEADERS, HEADERS + b"\r\n{", LIVEZ], ids=["headers", "body", "nothing more"])
@pytest.mark.long
def test_a_full_house_of_those_who_do_not_ask(server: Server, said: bytes) -> None:
    """Half a request, or none after an answer, from many addresses: they make room, and others are served meanwhile."""
    before = server.metric("batchinfer_connections_closed_total")
    with contextlib.ExitStack() as stack:
        for number in range(FULL + 200):
            source = (f"127.0.0.{2 + number % ADDRESSES}", 0)
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 30, source))
            client.sendall(said)
        eventually(lambda: server.metric("batchinfer_connections_closed_total") >= before + 100, server.said)
        assert server.lookup("shop", id="a").status == 200
