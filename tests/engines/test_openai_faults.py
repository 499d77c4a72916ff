"""What happens to a run, and to its rows, where a server or something before it does not do what it should."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from batchinfer.core import signals
from batchinfer.core.records import Failure, Generation, Prompt
from batchinfer.engines.dialects import TokenDialect
from batchinfer.engines.server_api import Broken, ServerApi
from batchinfer.errors import CutShort, Stopped, StoreError, UsageError
from tests.engines.test_openai import ASK, TEN_MINUTES, Bench, StagedTime, prompts
from tests.openai_server import BUSY, HALF, PAGE, Fault, card, serving


@pytest.fixture
def bench(tiny: Path, tmp_path: Path) -> Iterator[Bench]:
    with serving(models=[card(str(tiny), max_model_len=500)]) as server:
        yield Bench(server, tiny, tmp_path)


@pytest.mark.parametrize("fault", [Fault(504), Fault(403), PAGE, Fault(409), Fault(451)])
def test_a_prompt_that_something_before_the_server_stops_fails_alone(bench: Bench, fault: Fault) -> None:
    """The server is looked at after each time, and works: then it is the prompt, and the run comes to its end."""
    bench.server.fault = lambda _number, content: fault if content["prompt"] == list(b"query 005") else None
    found = bench.ask(8, time=StagedTime(), in_flight=4)
    assert [number for number, result in found.items() if isinstance(result, Failure)] == ["5"]
    assert found["5"].reason == "engine_error"


def test_a_server_that_breaks_off_every_connection_loses_no_row(bench: Bench) -> None:
    """As behind a port that is forwarded to a server that is not there: no row is to blame for that."""
    time = StagedTime()

    def broken(_what: object, _content: object = None) -> Fault | None:
        return HALF if time.now < TEN_MINUTES else None

    with bench.engine(time, in_flight=4) as made:
        made.wait_ready()
        bench.server.fault = bench.server.look_fault = broken
        found = list(made.generate(ASK, prompts(8)))
    assert [isinstance(result, Generation) for result in found] == [True] * 8
    assert time.now >= TEN_MINUTES


def test_others_are_not_asked_more_slowly_for_a_prompt_that_breaks_the_server(bench: Bench) -> None:
    """A server that says itself that it broke does not have too much to do."""
    bench.server.fault = lambda _number, content: Fault(500) if content["prompt"] == list(b"query 005") else None
    with bench.engine(in_flight=6) as made:
        made.wait_ready()
        list(made.generate(ASK, prompts(20)))
        assert made._flow.limit == 6


def test_an_account_without_money_ends_the_run(bench: Bench) -> None:
    """With the server's words; no row fails for it."""
    bench.server.fault = lambda number, _content: Fault(402, b'{"error": "Insufficient balance"}') if number else None
    with pytest.raises(CutShort, match="answers with HTTP 402: Insufficient balance"):
        bench.ask(5, time=StagedTime(), in_flight=1)


def test_an_answer_that_comes_byte_by_byte(bench: Bench) -> None:
    """It is to be there within `stall`, whole."""
    bench.stall_seconds = 0.3
    bench.server.fault = lambda number, _content: Fault(slow=0.1) if number == 0 else None
    found = bench.ask(3, in_flight=1)
    assert all(isinstance(result, Generation) for result in found.values())
    assert len(bench.server.asked) == 4


@pytest.mark.parametrize("wait", ["0", "Wed, 21 Oct 99999 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 GMT", "soon"])
def test_patience_has_an_end_whatever_a_server_asks_for(bench: Bench, wait: str) -> None:
    """Also where it wants to be asked again at once, each time."""
    bench.server.fault = lambda _number, _content: Fault(429, b"", {"retry-after": wait})
    time = StagedTime()
    with pytest.raises(CutShort, match=r"as long as engine.patience allows"):
        bench.ask(3, time=time, patience="1h")
    assert len(bench.server.asked) < 1000


def test_patience_has_an_end_while_answers_are_under_way(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes requests and answers none is not asked for days."""
    monkeypatch.setattr("batchinfer.engines.openai.LISTEN_SECONDS", 0.01)
    bench.server.fault = lambda _number, _content: Fault(late=0.5)
    time = StagedTime()
    with bench.engine(time, patience="1h", in_flight=2) as made:
        made.wait_ready()
        made._meanwhile = lambda: time.sleep(1000.0)  # in flight, so the server does not rest
        had = list[Generation | Failure]()
        with pytest.raises(CutShort, match=r"as long as engine.patience allows"):
            had.extend(made.generate(ASK, prompts(9)))
    assert len(had) == len(bench.server.asked) == 2


def test_a_stop_sends_nothing_more(bench: Bench) -> None:
    """What was to be asked again is the next run's."""
    bench.server.fault = lambda _number, _content: Fault(500)

    def stop() -> None:
        raise Stopped("asked to")

    with bench.engine(StagedTime(), in_flight=2) as made:
        made.wait_ready()
        made._meanwhile = stop
        with pytest.raises(Stopped, match="asked to"):
            list(made.generate(ASK, prompts(9)))
    assert len(bench.server.asked) == 2


def test_a_server_behind_one_that_says_busy_is_looked_at_again(bench: Bench) -> None:
    """A proxy answers 503 while there is none, and then another model may be there."""

    def swapped(number: int, _content: dict[str, Any]) -> Fault | None:
        bench.server.models = [card("other")]
        return BUSY if number else None

    bench.server.fault = swapped
    with pytest.raises(CutShort, match=r"cannot go on: .* lists other"):
        bench.ask(5, time=StagedTime(), in_flight=1)


AN_HOUR = 3600.0  # patience is six of them
TOO_LARGE = Fault(429, b'{"error": {"message": "Request too large: limit 30000, requested 34000."}}')


@pytest.mark.parametrize("count", [400, 200])
def test_a_prompt_that_is_always_too_much_fails_alone(bench: Bench, count: int) -> None:
    """Some servers say so of a prompt that they never take: others are answered meanwhile, and it fails in the end.

    Also where they are all answered before: then it fails once patience is at its end.
    """
    time = StagedTime()
    poison = list(b"query 005")

    def shed(_number: int, content: dict[str, Any]) -> Fault | None:
        time.now += 1.0
        return TOO_LARGE if content["prompt"] == poison else None

    bench.server.fault = shed
    found = bench.ask(count, time=time, in_flight=4, patience="30m")
    [failure] = [result for result in found.values() if isinstance(result, Failure)]
    assert (failure.prompt_key, failure.reason) == ((5).to_bytes(16), "engine_error")
    assert "Request too large: limit 30000, requested 34000" in failure.detail


@pytest.mark.parametrize(("count", "poison"), [(200, [199]), (1, [0]), (300, [298, 299])], ids=["last", "alone", "two"])
def test_a_prompt_that_is_always_too_much_and_left_fails_alone(bench: Bench, count: int, poison: list[int]) -> None:
    """With no others to be answered meanwhile it does so once patience is at its end: no later run waits for it again."""
    time = StagedTime()
    never = [list(f"query {number:03d}".encode()) for number in poison]
    bench.server.fault = lambda _number, content: TOO_LARGE if content["prompt"] in never else None
    found = bench.ask(count, time=time, in_flight=4)
    failed = [result for result in found.values() if isinstance(result, Failure)]
    assert {failure.prompt_key for failure in failed} == {number.to_bytes(16) for number in poison}
    assert all("Request too large" in failure.detail for failure in failed)
    assert 6 * AN_HOUR < time.now < 6.2 * AN_HOUR


@pytest.mark.parametrize("left", [1, 5, 20])
@pytest.mark.parametrize("before", [0, 600])
def test_no_row_fails_for_a_quota_that_ends_within_patience(bench: Bench, before: int, left: int) -> None:
    """However few are left: a server whose quota is used up may still answer probes, of one token."""
    time, hidden = StagedTime(), [list(f"query {before + number:03d}".encode()) for number in range(left)]
    bench.server.fault = lambda _number, content: (
        BUSY if content["prompt"] in hidden and time.now < 5.5 * AN_HOUR else None
    )
    found = bench.ask(before + left, time=time, in_flight=4)
    assert all(isinstance(result, Generation) for result in found.values())


@pytest.mark.parametrize("look_fault", [BUSY, Fault(502)])
def test_a_prompt_that_is_left_does_not_fail_for_a_server_that_is_not_there(bench: Bench, look_fault: Fault) -> None:
    """It was too much for hours; then the server itself went away, until patience was at its end."""
    time = StagedTime()
    bench.server.fault = lambda _number, _content: BUSY
    bench.server.look_fault = lambda _path: look_fault if time.now > AN_HOUR else None
    with pytest.raises(CutShort, match=r"as long as engine.patience allows"):
        bench.ask(1, time=time)


def test_no_row_fails_for_a_server_that_sheds_most_of_its_load(bench: Bench) -> None:
    """As one whose account others use up: three of four requests are shed, for as long as it takes."""
    time, dice = StagedTime(), random.Random(5)

    def shed(_number: int, _content: dict[str, Any]) -> Fault | None:
        time.now += 5.0
        return BUSY if dice.random() < 0.75 else None

    bench.server.fault = shed
    found = bench.ask(300, time=time, in_flight=4)
    assert all(isinstance(result, Generation) for result in found.values())


def test_a_server_that_sheds_all_for_long_is_told(bench: Bench) -> None:
    """Once for each time that it stops answering, and no row fails for it."""
    time = StagedTime()
    bench.server.fault = lambda number, _content: BUSY if number > 20 and time.now < TEN_MINUTES else None
    found = bench.ask(40, time=time, in_flight=4)
    assert all(isinstance(result, Generation) for result in found.values())
    [said] = bench.said
    assert said.endswith("has too much to do (HTTP 503: overloaded), and answers nothing: it is asked again ...")


def test_a_suspect_is_alone_for_as_long_as_it_takes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent beside a prompt that may be what the server cannot bear, however late that shows."""
    monkeypatch.setattr("batchinfer.engines.openai.LISTEN_SECONDS", 0.01)
    beside = list[int]()

    def late(reply: dict[str, Any]) -> dict[str, Any]:
        if reply["choices"][0]["text"] == "query 005":
            bench.server.most = 1
            sleep(0.05)
            beside.append(bench.server.most)
            reply["choices"] = []
        return reply

    bench.server.answer = late
    found = bench.ask(300, in_flight=6)
    assert [number for number, result in found.items() if isinstance(result, Failure)] == ["5"]
    assert beside[2:] == [1, 1]


def test_a_slow_request_does_not_hold_up_the_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a fault of a gateway the server is looked at, and asked on, while another answer is still under way."""
    monkeypatch.setattr("batchinfer.engines.openai.LISTEN_SECONDS", 0.01)
    others, in_time = threading.Event(), list[bool]()

    def slow(reply: dict[str, Any]) -> dict[str, Any]:
        if reply["choices"][0]["text"] == "query 000":
            in_time.append(others.wait(20))
        return reply

    def faulty(number: int, _content: dict[str, Any]) -> Fault | None:
        if number == 9:
            others.set()
        return Fault(502) if number == 1 else None

    bench.server.answer, bench.server.fault, bench.stall_seconds = slow, faulty, 30.0
    found = bench.ask(9, in_flight=2)
    assert all(isinstance(result, Generation) for result in found.values())
    assert in_time == [True]


def wait_until(condition: Callable[[], bool]) -> None:
    """For twenty seconds at most."""
    for _ in range(2000):
        if condition():
            return
        sleep(0.01)


def for_all_but_the_first(fault: Fault) -> Callable[[int, dict[str, Any]], Fault | None]:
    return lambda _number, content: None if content["prompt"] == list(b"query 000") else fault


def unpaid(bench: Bench) -> None:
    """The account has no more money."""
    bench.server.fault = for_all_but_the_first(Fault(402, b'{"error": "Insufficient balance"}'))


def another_key(bench: Bench) -> None:
    """The key is taken back."""
    bench.server.fault = for_all_but_the_first(Fault(401))
    bench.server.look_fault = lambda _path: Fault(401) if bench.server.asked else None


@pytest.mark.parametrize("count", [9, 3])
@pytest.mark.parametrize(("end", "said"), [(unpaid, "HTTP 402: Insufficient"), (another_key, "HTTP 401")])
def test_what_is_in_flight_is_waited_for_where_the_run_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, end: Callable[[Bench], None], said: str, count: int
) -> None:
    """It is paid: why the run ends is told once the answers before are there. Also where few rows were left to be asked."""
    monkeypatch.setattr("batchinfer.engines.openai.LISTEN_SECONDS", 0.01)
    monkeypatch.setattr("batchinfer.engines.flow.LEAST_WAIT", 0.001)
    end(bench)
    bench.stall_seconds = 30.0
    had = list[Generation | Failure]()
    with bench.engine(in_flight=2) as made:
        made.wait_ready()

        def slow(reply: dict[str, Any]) -> dict[str, Any]:
            if reply["choices"][0]["text"] == "query 000":
                # the run is to end, or has nothing else to do, and some rounds more
                wait_until(lambda: made._ended is not None or bool(made._suspects))
                sleep(0.1)
            return reply

        bench.server.answer = slow
        with pytest.raises(CutShort, match=said):
            had.extend(made.generate(ASK, iter(prompts(count))))
    assert [result.prompt_key for result in had] == [(0).to_bytes(16)]


@pytest.mark.parametrize(("models", "said"), [("other", "lists other"), (None, "came back with other settings")])
@pytest.mark.parametrize("is_late", [True, False], ids=["after the look", "before it"])
def test_what_another_model_may_have_answered_is_not_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, models: str | None, said: str, is_late: bool
) -> None:
    """What was in flight when the server went away is answered by whatever took its place, as behind a proxy with a queue."""
    monkeypatch.setattr("batchinfer.engines.openai.LISTEN_SECONDS", 0.01)
    other = card(models or str(bench.tiny), max_model_len=77)
    looked, answered = threading.Event(), threading.Event()

    def look(_path: str) -> None:
        if bench.server.asked:
            answered.wait(0 if is_late else 20)
            bench.server.models = [other]
            looked.set()

    def swapped(reply: dict[str, Any]) -> dict[str, Any]:
        wait_until(lambda: looked.is_set() if is_late else made._away is not None)
        reply["choices"][0]["text"] = "of the other model"
        answered.set()
        return reply

    bench.server.fault, bench.server.look_fault = for_all_but_the_first(Fault(502)), look
    had = list[Generation | Failure]()
    with bench.engine(in_flight=2) as made:
        made.wait_ready()
        bench.server.answer = swapped
        with pytest.raises(CutShort, match=said):
            had.extend(made.generate(ASK, iter(prompts(9))))
    assert had == []


def test_what_comes_back_while_the_server_is_away_is_kept_once_it_is_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the run is asked to stop before that is known: nothing says that it is another."""
    monkeypatch.setattr("batchinfer.engines.openai.LISTEN_SECONDS", 0.01)
    bench.server.fault = lambda number, _content: Fault(late=0.1) if number == 0 else HALF if number == 1 else None
    found = bench.ask(9, in_flight=2)
    assert all(isinstance(result, Generation) for result in found.values())
    assert len(bench.server.asked) == 10
    bench.server.fault = for_all_but_the_first(Fault(502))
    had = list[Generation | Failure]()
    with bench.engine(StagedTime(), in_flight=2) as made:
        made.wait_ready()
        bench.server.look_fault = lambda _path: Fault(502)

        def stop() -> None:
            if made._results:
                raise Stopped("asked to")

        def slow(reply: dict[str, Any]) -> dict[str, Any]:
            wait_until(lambda: made._away is not None)
            return reply

        made._meanwhile, bench.server.answer = stop, slow
        with pytest.raises(Stopped, match="asked to"):
            had.extend(made.generate(ASK, prompts(9)))
    assert [result.prompt_key for result in had] == [(0).to_bytes(16)]


@pytest.mark.parametrize("fault", [StoreError("no room"), MemoryError("no room"), ValueError("no room")])
def test_what_is_in_flight_is_waited_for_where_no_prompt_can_be_made(bench: Bench, fault: Exception) -> None:
    """As where the disk is full on which the list is: that ends the run, after the answers to those before."""

    def failing() -> Iterator[Prompt]:
        yield from prompts(3)
        raise fault

    had = list[Generation | Failure]()
    bench.server.fault = lambda _number, _content: Fault(late=0.1)
    with bench.engine(in_flight=8) as made:
        made.wait_ready()
        with pytest.raises(type(fault), match="no room"):
            had.extend(made.generate(ASK, failing()))
    assert len(had) == 3


def test_a_stop_at_once_waits_for_nothing(bench: Bench) -> None:
    """Also where it came while DuckDB read the list, which raises an error of its own in place of it."""

    def stopped() -> Iterator[Prompt]:
        yield from prompts(3)
        raise RuntimeError(signals.INTERRUPTED)

    signals.raising(KeyboardInterrupt())
    try:
        with bench.engine(in_flight=8) as made:
            made.wait_ready()
            with pytest.raises(KeyboardInterrupt):
                list(made.generate(ASK, stopped()))
    finally:
        signals.forget()


def test_what_is_in_flight_is_waited_for_where_a_reply_cannot_be_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of our own ends the run, with all the other answers."""
    read = TokenDialect.read

    def failing(self: TokenDialect, prompt: Prompt, reply: Any) -> Generation | Failure:
        if prompt.prompt_key == (0).to_bytes(16):
            raise MemoryError("no room")
        return read(self, prompt, reply)

    monkeypatch.setattr(TokenDialect, "read", failing)
    bench.server.fault = lambda _number, content: None if content["prompt"] == list(b"query 000") else Fault(late=0.1)
    had = list[Generation | Failure]()
    with bench.engine(in_flight=8) as made:
        made.wait_ready()
        with pytest.raises(MemoryError, match="no room"):
            had.extend(made.generate(ASK, prompts(50)))
    assert len(had) == len(bench.server.asked) - 1


def test_a_key_that_a_server_repeats(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands in no failure, and no log."""
    monkeypatch.setenv("SHOP_KEY", "sk-secret")
    bench.server.fault = lambda _number, _content: Fault(400, b'{"error": {"message": "No sk-secret here."}}')
    [failure] = bench.ask(1, api_key_env="SHOP_KEY").values()
    assert failure.detail == "The server refused the prompt: No ... here."


def test_a_key_that_is_none(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is named, and not what is in it."""
    monkeypatch.setenv("SHOP_KEY", "secret\n")
    with pytest.raises(UsageError, match="The variable SHOP_KEY has characters that no key can have") as refused:
        bench.ask(1, api_key_env="SHOP_KEY")
    assert (refused.value.field, "secret" in str(refused.value)) == (("engine", "api_key_env"), False)


@pytest.mark.parametrize("address", ["socks5://me:secret@proxy:1080", "proxy:3128:x"])
def test_a_proxy_that_is_none(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told in a sentence, without the password in it."""
    monkeypatch.setenv("http_proxy", address)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(UsageError, match="The proxy that the environment names for http is no address") as refused:
        ServerApi("http://api.example.org/v1", None, connections=1, stall_seconds=1.0)
    assert "secret" not in str(refused.value)


PIECE = 1 << 18


def read_slowly(listener: socket.socket) -> None:
    """Takes one request, a piece at a time, and answers it."""
    with contextlib.suppress(OSError), listener.accept()[0] as connection, connection.makefile("rb") as file:
        head = b"".join(iter(file.readline, b"\r\n")).lower()
        left = int(head.partition(b"content-length:")[2].split()[0])
        while left > 0:
            left -= len(file.read1(PIECE))
            sleep(0.02)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n" + b'{"id": "file"}')


def test_a_large_file_takes_as_long_as_the_line_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also longer than a connection may take; a server that takes nothing of it is told."""
    monkeypatch.setattr("batchinfer.engines.server_api.CONNECT_SECONDS", 1.0)
    content = bytes(100 * PIECE)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
        api = ServerApi(f"http://127.0.0.1:{listener.getsockname()[1]}", None, connections=1, stall_seconds=30.0)
        thread = threading.Thread(target=read_slowly, args=(listener,))
        thread.start()
        assert api.upload("/files", "part.jsonl", content, {}) == {"id": "file"}
        thread.join()
        with pytest.raises(Broken, match="took nothing of what was sent to it for 1 s"):
            api.upload("/files", "part.jsonl", content, {})
