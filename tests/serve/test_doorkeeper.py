"""Who is closed where connections crowd, and who is not."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import pytest

from batchinfer.serve.doorkeeper import CROWDED, FULL, IDLE_SECONDS, Doorkeeper
from batchinfer.serve.sockets import Address, ClientSocket, Flow, address_of
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


class Cut(Client):
    """One that may be closed."""

    def cut(self) -> None:
        """Nothing is there to end."""


def unwanted(doorkeeper: Doorkeeper, clients: list[Client], now: float = 0.0) -> list[int]:
    """The ports of those that it would close, in order. All addresses differ. now: when it looks."""
    each = [Client(client.port, client.said, f"address {client.port}") for client in clients]
    return [guest.client.port for guest in doorkeeper._unwanted(cast("list[ClientSocket]", each), now)]


def asks(number: int, idle: float = 0.0, acked: int = 1000) -> Client:
    """One that spoke a moment ago. idle: since the last answer before that."""
    return Client(number, Flow(acked, 1000, 0.0, idle))


def idles(number: int, seconds: float) -> Client:
    """One that had its answer so long ago."""
    return Client(number, Flow(1000, 1000, seconds, seconds))


BUSY = [asks(number) for number in range(FULL)]  # one more is too many


def test_the_idle_go_where_the_house_is_full() -> None:
    """The longest first, and no more of them than is needed."""
    idle = [idles(FULL + number, IDLE_SECONDS + number) for number in range(3)]
    assert unwanted(Doorkeeper(), [*BUSY[1:], *idle]) == [FULL + 2, FULL + 1]
    assert unwanted(Doorkeeper(), [*BUSY[3:], *idle]) == []


def test_who_has_just_asked_stays() -> None:
    """However long it was idle before; and again after each answer, also where that came between two looks."""
    doorkeeper = Doorkeeper()
    for now in range(5):
        assert unwanted(doorkeeper, [*BUSY, asks(9000, 60.0, acked=now)], float(now)) == []
        assert unwanted(doorkeeper, [*BUSY, asks(9000, 60.0, acked=now)], now + IDLE_SECONDS / 2) == []


def test_who_asks_without_an_end_goes() -> None:
    """A second after it began, though it goes on: after those that are idle. Who was answered meanwhile begins anew."""
    doorkeeper = Doorkeeper()
    endless = [asks(9000, 5.0), asks(9001, 5.0)]
    assert unwanted(doorkeeper, [*BUSY, *endless], 10.0) == []
    assert unwanted(doorkeeper, [*BUSY, *endless], 10.0 + IDLE_SECONDS) == [9000, 9001]
    assert unwanted(doorkeeper, [*BUSY, *endless, idles(9002, 1.5)], 12.0) == [9002, 9000, 9001]
    assert unwanted(doorkeeper, [*BUSY, endless[0], idles(9001, 0.1)], 13.0) == [9000]
    assert unwanted(doorkeeper, [*BUSY, endless[0], endless[1]], 14.0) == [9000]


def test_the_silent_go_first() -> None:
    """And where there is a crowd already."""
    silent = Client(9, Flow(0, 0, IDLE_SECONDS, IDLE_SECONDS))
    assert unwanted(Doorkeeper(), [*(asks(100 + number) for number in range(CROWDED)), silent]) == [9]
    idle = [idles(100 + number, 5.0) for number in range(FULL)]
    assert unwanted(Doorkeeper(), [*idle, silent]) == [9]


def test_who_waits_for_an_answer_stays() -> None:
    """However long it takes; but not while it does not send what it has to."""
    doorkeeper = Doorkeeper()
    waits = Client(5000, Flow(0, 500, 3.0, 3.1), "address 5000")
    with doorkeeper.serving("[address 5000]:5000"):
        assert unwanted(doorkeeper, [*BUSY, waits], 10.0) == []
        assert unwanted(doorkeeper, [*BUSY, waits], 20.0) == []
        with doorkeeper.awaiting("[address 5000]:5000"):
            assert unwanted(doorkeeper, [*BUSY, waits], 20.0) == [5000]
        assert unwanted(doorkeeper, [*BUSY, waits], 20.0) == []
    assert unwanted(doorkeeper, [*BUSY, waits], 20.0) == [5000]


def test_who_asks_as_it_is_to_be_closed_stays() -> None:
    """Whether it is seen to have asked, or is served by now."""
    doorkeeper = Doorkeeper()
    [client] = cast("list[ClientSocket]", [Cut(1, Flow(1000, 1000, 5.0, 5.0))])
    [guest] = doorkeeper._guests([client], 0.0)
    with doorkeeper.serving("192.0.2.1:1"):
        assert not doorkeeper._close(guest)
    assert doorkeeper._close(guest)
    [guest] = doorkeeper._guests([client], 0.0)
    guest = dataclasses.replace(guest, flow=Flow(1000, 900, 5.0, 5.0))
    assert not doorkeeper._close(guest)


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


@pytest.mark.parametrize(
    ("client", "address"),
    [
        ("192.0.2.1:80", ("192.0.2.1", 80)),
        ("[2001:db8::1]:80", ("2001:db8::1", 80)),
        ("[fe80::1%2]:80", ("fe80::1", 80)),
        ("", ("", 0)),
    ],
)
def test_a_client_is_known_by_the_address_of_its_socket(client: str, address: Address) -> None:
    """Also one of the same link."""
    assert address_of(client) == address


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
