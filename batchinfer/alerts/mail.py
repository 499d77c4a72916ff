"""Sends an event as mail."""

from __future__ import annotations

import contextlib
import json
import smtplib
import socket
import ssl
from collections.abc import Mapping
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime

from batchinfer.alerts.connecting import connected
from batchinfer.alerts.outcome import Outcome
from batchinfer.alerts.rules import MailReceiver

LASTING = 500  # from this reply of a mail server on, trying again does not help


def send_mail(
    receiver: MailReceiver, event_id: str, body: str, environment: Mapping[str, str], now: datetime, seconds: float
) -> Outcome:
    """One try. seconds: for all of it; who calls ends it then."""
    if (lacks := receiver.lacks(environment)) is not None:
        return Outcome(said=lacks)
    try:
        message = mail_of(receiver, event_id, body, now)
        with contextlib.closing(_connected(receiver, seconds)) as server:  # no QUIT, at which some servers hang
            if receiver.user_env is not None and receiver.password_env is not None:
                server.login(environment[receiver.user_env], environment[receiver.password_env])
            refused = server.send_message(message)  # raises if all are refused
    except smtplib.SMTPRecipientsRefused as exc:
        replies = list(exc.recipients.values())
        lasting = all(code >= LASTING for code, _ in replies)
        return Outcome(said=f"the mail server refused every address: {_text(replies[0][1])}.", lasting=lasting)
    except smtplib.SMTPResponseException as exc:
        said = f"the mail server answered {exc.smtp_code}: {_text(exc.smtp_error)}."
        return Outcome(said=said, lasting=exc.smtp_code >= LASTING)
    except UnicodeError:  # which says what it met: it may be of a password
        return Outcome(said="the mail server cannot be used with names or passwords of other letters than ASCII has.")
    except (OSError, smtplib.SMTPException, ValueError) as exc:
        return Outcome(
            said=f"the mail server cannot be used: {(exc.strerror if isinstance(exc, OSError) else None) or exc}."
        )
    left = f"not for {', '.join(refused)}, whom the mail server refused." if refused else ""
    return Outcome(delivered=True, said=left)


def mail_of(receiver: MailReceiver, event_id: str, body: str, now: datetime) -> EmailMessage:
    """The mail. Each try has the same Message-ID. Raises ValueError for addresses that none can have."""
    data = json.loads(body)["data"]
    message = EmailMessage()
    message["Subject"] = f"[batchinfer] {data['subject']}"
    message["From"] = receiver.sender
    message["To"] = ", ".join(receiver.to)
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{event_id}@{receiver.sender.rpartition('@')[2].rstrip('>') or 'batchinfer'}>"
    message["Auto-Submitted"] = "auto-generated"
    facts = {"since": data["since"], "version": data["version"], "last run that ended well": data["last_success_at"]}
    lines = [data["message"], "", *(f"{name}: {value}" for name, value in facts.items() if value is not None)]
    message.set_content("\n".join([*lines, f"batchinfer status {data['job']} says more."]))
    return message


class _Server(smtplib.SMTP):
    """Connects by `connected`."""

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return connected((host, port), timeout)


class _SecretServer(smtplib.SMTP_SSL):
    """The same, with TLS from the beginning."""

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self.context.wrap_socket(connected((host, port), timeout), server_hostname=host)


def _connected(receiver: MailReceiver, seconds: float) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if receiver.tls == "tls":
        return _SecretServer(receiver.host, receiver.port, timeout=seconds, context=context)
    server = _Server(receiver.host, receiver.port, timeout=seconds)
    if receiver.tls == "starttls":
        server.starttls(context=context)
    return server


def _text(said: bytes | str) -> str:
    return " ".join((said.decode(errors="replace") if isinstance(said, bytes) else said).split()).rstrip(".")
