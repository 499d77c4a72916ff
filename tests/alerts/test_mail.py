"""Mail: it reaches a real mail server, once by its Message-ID, with or without TLS and a password."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

from batchinfer.alerts.event import AlertEvent
from batchinfer.alerts.mail import send_mail
from batchinfer.alerts.outcome import Outcome
from batchinfer.alerts.rules import AlertKind, MailReceiver
from tests.alerts.made import START, hanging_receiver
from tests.serving import free_port

EVENT = AlertEvent("shop", AlertKind.FAILED, 3, 12, START, "Run 12 failed: Datei fehlt — Größe 0", 0, "x", START)
BODY = EVENT.body(START)
ENVIRONMENT = {"MAIL_USER": "jobs", "MAIL_PASSWORD": "long and odd: %$"}


class MailServer:
    """What a mail server got. refuses: addresses, each with the reply to it; replies: to whole mails, one after the other."""

    def __init__(self) -> None:
        self.got: list[tuple[list[str], Message]] = []
        self.refuses: dict[str, str] = {}
        self.replies: list[str] = []
        self.port = 0
        self.goodbye = "221 Bye"

    async def handle_RCPT(self, _: Any, __: Session, envelope: Envelope, address: str, ___: Any) -> str:  # noqa: N802 - its name there
        if address not in self.refuses:
            envelope.rcpt_tos.append(address)
        return self.refuses.get(address, "250 OK")

    async def handle_QUIT(self, *_: Any) -> str:  # noqa: N802 - the same
        return self.goodbye

    async def handle_DATA(self, _server: Any, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - the same
        if self.replies:
            return self.replies.pop(0)
        assert isinstance(envelope.content, bytes)
        self.got.append((envelope.rcpt_tos, message_from_bytes(envelope.content, policy=policy.default)))
        return "250 OK"


@contextmanager
def mail_server(**options: Any) -> Iterator[MailServer]:
    server = MailServer()
    server.port = free_port()
    controller = Controller(server, hostname="127.0.0.1", port=server.port, **options)
    controller.start()
    try:
        yield server
    finally:
        controller.stop()


def receiver(port: int, **changes: Any) -> MailReceiver:
    known: dict[str, Any] = {
        "to": ("ops@example.org", "boss@example.org"),
        "tls": "none",
        "user_env": None,
        "password_env": None,
    }
    return MailReceiver(sender="jobs@example.org", host="127.0.0.1", port=port, **known | changes)


def sent(to: MailReceiver, environment: dict[str, str] = ENVIRONMENT, event_id: str = EVENT.id) -> Outcome:
    return send_mail(to, event_id, BODY, environment, datetime.now(UTC), 5.0)


def test_mail_arrives() -> None:
    """Once for all addresses, in words, from a program that says so; a second try has the same Message-ID."""
    with mail_server() as server:
        assert [sent(receiver(server.port)) for _ in range(2)] == [Outcome(delivered=True)] * 2
    (to, message), (_, again) = server.got
    assert to == ["ops@example.org", "boss@example.org"]
    assert message["subject"] == "[batchinfer] shop: run failed"
    assert message["message-id"] == again["message-id"] == f"<{EVENT.id}@example.org>"
    assert message["auto-submitted"] == "auto-generated"
    assert isinstance(text := message.get_content(), str)  # type: ignore[attr-defined]
    assert text.splitlines()[0] == "Run 12 failed: Datei fehlt — Größe 0"
    assert "since: 2026-01-05T03:00:00Z" in text
    assert "batchinfer status shop" in text


def test_what_the_server_refuses() -> None:
    """For good or for now, as its reply says; where it takes some addresses, those have it, and it is not sent again."""
    with mail_server() as server:
        server.replies = ["451 Try again", "554 No"]
        assert sent(receiver(server.port)) == Outcome(said="the mail server answered 451: Try again.")
        assert sent(receiver(server.port)) == Outcome(said="the mail server answered 554: No.", lasting=True)
        server.refuses = {"boss@example.org": "550 Nobody here"}
        outcome = sent(receiver(server.port))
        assert (outcome.delivered, outcome.said) == (True, "not for boss@example.org, whom the mail server refused.")
        server.refuses["ops@example.org"] = "550 Nobody here"
        assert sent(receiver(server.port)) == Outcome(
            said="the mail server refused every address: Nobody here.", lasting=True
        )
        server.refuses["ops@example.org"] = "450 Busy"
        assert not sent(receiver(server.port)).lasting
    assert len(server.got) == 1


def certificate(folder: Path) -> ssl.SSLContext:
    """A server's, which nobody trusts yet."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
         "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "key"), "-out", str(folder / "crt")],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    return context


def test_a_password_goes_over_tls_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name and password come from the environment; a certificate that nobody vouches for ends it before they are sent."""
    asked: list[tuple[bytes, bytes]] = []

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: LoginPassword) -> AuthResult:
        asked.append((data.login, data.password))
        return AuthResult(success=data.password == ENVIRONMENT["MAIL_PASSWORD"].encode(), handled=False)

    options = {"tls_context": certificate(tmp_path), "authenticator": authenticate, "auth_required": True}
    secret = {"tls": "starttls", "user_env": "MAIL_USER", "password_env": "MAIL_PASSWORD"}
    with mail_server(**options) as server:
        assert "certificate verify failed" in sent(receiver(server.port, **secret)).said
        assert asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "crt"))
        assert sent(receiver(server.port, **secret)).delivered
        refused = sent(receiver(server.port, **secret), ENVIRONMENT | {"MAIL_PASSWORD": "guessed"})
        assert refused.said.startswith("the mail server answered 535: ")
        assert "guessed" not in refused.said
        odd = sent(receiver(server.port, **secret), ENVIRONMENT | {"MAIL_PASSWORD": "zäh"})
        assert odd.said.endswith("names or passwords of other letters than ASCII has.")
    assert asked[0] == (b"jobs", b"long and odd: %$")
    missing = sent(receiver(server.port, **secret), {"MAIL_USER": "jobs"})
    assert missing == Outcome(said="the environment has no MAIL_PASSWORD, which the mail server wants.")


def test_a_server_that_is_not_there_or_says_nothing() -> None:
    """A sentence, and it is tried again; what waits for a greeting ends by its time."""
    assert sent(receiver(9)).said == "the mail server cannot be used: Connection refused."
    with hanging_receiver() as address:
        to = receiver(int(address.rpartition(":")[2]))
        outcome = send_mail(to, EVENT.id, BODY, {}, START, 0.2)
    assert (outcome.delivered, outcome.lasting) == (False, False)
    assert outcome.said.startswith("the mail server cannot be used: ")


def test_the_event_as_json() -> None:
    """What webhooks and programs get: the type, the time, and all that is known."""
    assert json.loads(BODY) == {
        "type": "job.failed", "timestamp": "2026-01-05T03:00:00Z",
        "data": {
            "job": "shop", "event": "failed", "subject": "shop: run failed", "message": EVENT.said, "version": 3, "run_id": 12,
            "since": "2026-01-05T03:00:00Z", "reminder": 0, "last_success_at": "2026-01-05T03:00:00Z",
        },
    }  # fmt: skip


def test_a_server_that_is_odd_at_the_end_has_the_mail() -> None:
    """What it took is not sent again, whatever it says to a goodbye."""
    with mail_server() as server:
        server.goodbye = "500 What?"
        assert sent(receiver(server.port)).delivered
        assert len(server.got) == 1
