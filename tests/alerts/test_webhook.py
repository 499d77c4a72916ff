"""Webhooks: what a receiver gets is signed as Standard Webhooks has it, and what it answers is understood."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from batchinfer.alerts.outcome import Outcome
from batchinfer.alerts.rules import WebhookReceiver
from batchinfer.alerts.webhook import send_webhook
from tests.alerts.made import SECRET, WebReceiver, web_receiver

BODY = json.dumps({"type": "job.failed", "data": {"job": "shop", "message": "Тут ошибка"}}, ensure_ascii=False)
ENVIRONMENT = {"ALERTS_SECRET": SECRET}


def sent(receiver: WebReceiver, url: str = "", secret: str = SECRET) -> Outcome:
    to = WebhookReceiver(url or receiver.url, "ALERTS_SECRET")
    return send_webhook(to, "batchinfer_1", BODY, {"ALERTS_SECRET": secret}, datetime.now(UTC), 5.0)


def test_a_receiver_can_verify_what_it_gets() -> None:
    """The reference library takes headers and body; another secret, or one byte more, it does not."""
    with web_receiver() as receiver:
        assert sent(receiver) == Outcome(delivered=True)
    [(headers, body)] = receiver.got
    assert Webhook(SECRET).verify(body, headers) == json.loads(BODY)
    assert (headers["webhook-id"], headers["content-type"]) == ("batchinfer_1", "application/json")
    for secret, content in ((f"whsec_{base64.b64encode(bytes(32)).decode()}", body), (SECRET, body + b" ")):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(content, headers)


def test_secrets_can_change_without_a_gap() -> None:
    """Both sign, so that the receiver may know either."""
    new = f"whsec_{base64.b64encode(bytes(32)).decode()}"
    with web_receiver() as receiver:
        assert sent(receiver, secret=f"{SECRET} {new}").delivered
    [(headers, body)] = receiver.got
    for secret in (SECRET, new):
        assert Webhook(secret).verify(body, headers) == json.loads(BODY)


def test_nothing_is_sent_unsigned() -> None:
    """Without a secret, or with one that is none, the receiver hears nothing; the sentence names the variable alone."""
    with web_receiver() as receiver:
        for secret in ("", "hunter2"):
            outcome = sent(receiver, secret=secret)
            assert (outcome.delivered, outcome.lasting) == (False, False)
            assert "ALERTS_SECRET" in outcome.said
            assert "hunter2" not in outcome.said
    assert receiver.got == []


@pytest.mark.parametrize(
    ("status", "lasting", "said"),
    [
        (500, False, "it answered 500."), (503, False, "it answered 503."), (429, False, "it answered 429."),
        (408, False, "it answered 408."), (404, True, "it answered 404."), (410, True, "it answered 410."),
        (302, True, "it answered 302, and redirects are not followed"),
    ],
)  # fmt: skip
def test_an_answer_says_whether_to_try_again(status: int, lasting: bool, said: str) -> None:
    """What says that the request is wrong is another thing than what says that the moment is; nobody is followed elsewhere."""
    with web_receiver() as elsewhere, web_receiver(status, location=elsewhere.url, retry_after="120") as receiver:
        outcome = sent(receiver)
    assert (outcome.delivered, outcome.lasting) == (False, lasting)
    assert outcome.said.startswith(said)
    assert elsewhere.got == []
    assert len(receiver.got) == 1
    assert outcome.wait == (0.0 if status == 302 else 120.0)


@pytest.mark.parametrize("wait", ["soon", "-5", "1e9", "99999999"])
def test_a_wait_that_a_receiver_asks_for_has_bounds(wait: str) -> None:
    """Nobody is silenced for good by a header."""
    with web_receiver(503, retry_after=wait) as receiver:
        assert 0 <= sent(receiver).wait <= 6 * 3600


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9/", "Connection refused"),
        ("https://127.0.0.1:9/", "Connection refused"),
    ],
)
def test_a_receiver_that_is_not_there(url: str, said: str) -> None:
    """A sentence says why, and it is tried again."""
    outcome = sent(WebReceiver(), url)
    assert (outcome.delivered, outcome.lasting) == (False, False)
    assert said in outcome.said


def test_what_answers_with_something_else() -> None:
    """A server that speaks no HTTP, or no TLS where TLS was named, is a receiver that cannot be reached."""
    with web_receiver() as receiver:
        outcome = sent(receiver, receiver.url.replace("http:", "https:"))
    assert outcome.said.startswith("it cannot be reached: ")
    assert not outcome.delivered


def test_a_slow_answer_is_an_answer() -> None:
    """Only connecting has to be quick: a host may have a second address."""
    with slow_receiver(1.2) as url:
        to = WebhookReceiver(url, "ALERTS_SECRET")
        outcome = send_webhook(to, "batchinfer_1", BODY, {"ALERTS_SECRET": SECRET}, datetime.now(UTC), 2.0)
    assert outcome.delivered


def test_a_silent_address_leaves_time_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first address of a host leads nowhere; the second one is reached within the same try."""
    with web_receiver() as receiver:
        port = int(receiver.url.rpartition(":")[2].partition("/")[0])
        there = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        with silent_address() as nowhere:
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(*there[:4], nowhere), there])
            to = WebhookReceiver(f"http://two.example:{port}/hook", "ALERTS_SECRET")
            timeouts = list[float]()
            monkeypatch.setattr(socket.socket, "settimeout", noting(timeouts, socket.socket.settimeout))
            outcome = send_webhook(to, "batchinfer_1", BODY, {"ALERTS_SECRET": SECRET}, datetime.now(UTC), 2.0)
    assert outcome.delivered
    assert timeouts == [1.0, 1.0, 2.0], "each address half of the time, and what follows all of it"


def noting(
    timeouts: list[float], original: Callable[[socket.socket, Any], None]
) -> Callable[[socket.socket, Any], None]:
    """`settimeout`, which notes what it is told."""

    def settimeout(one: socket.socket, value: Any) -> None:
        timeouts.append(value)
        original(one, value)

    return settimeout


@contextlib.contextmanager
def silent_address() -> Iterator[tuple[str, int]]:
    """One that takes no connection and refuses none: its queue is full."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()


@contextlib.contextmanager
def slow_receiver(seconds: float) -> Iterator[str]:
    """A server that answers after so long."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                time.sleep(seconds)
                connection.sendall(b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/hook"
