"""The rules by which somebody is told of a job, as the job file, a manifest and the notes of runs have them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Self
from urllib.parse import urlsplit

from batchinfer.core.keys import canonical_json

SECONDS = re.compile("[0-9]{1,12}s")
SECRET_PREFIX = "whsec_"  # noqa: S105 - how secrets of Standard Webhooks begin
LEAST_SECRET = 16  # bytes
PORTS = {"none": 25, "starttls": 587, "tls": 465}


class AlertKind(StrEnum):
    """What somebody is told of.

    FAILED: a run did not come to its end. REFUSED: the gate did not let its version through. STALE: no run ended well for
    too long. RECOVERED: none of that holds any more.
    """

    FAILED = "failed"
    REFUSED = "refused"
    STALE = "stale"
    RECOVERED = "recovered"


@dataclass(frozen=True, slots=True)
class WebhookReceiver:
    """An address that is sent a signed request.

    url: of http or https.
    secret_env: the environment variable that has the secret.
    """

    url: str
    secret_env: str

    @property
    def name(self) -> str:
        """For people; what follows the host may be secret."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def lacks(self, environment: Mapping[str, str]) -> str | None:
        """Why nothing can be sent, as a sentence; None if it can."""
        if not environment.get(self.secret_env):
            return f"the environment has no {self.secret_env}, which is to hold the webhook's secret."
        if not webhook_secrets(environment[self.secret_env]):
            return f"{self.secret_env} is no secret of a webhook: it should be {SECRET_PREFIX} and {LEAST_SECRET} bytes or more in base64."
        return None

    def to_json(self) -> dict[str, Any]:
        """As a rule has it."""
        return {"webhook": self.url, "secret_env": self.secret_env}


@dataclass(frozen=True, slots=True)
class CommandReceiver:
    """A program that is started and given the event.

    words: the program and its arguments.
    """

    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """For people; arguments may be secret."""
        return self.words[0]

    def lacks(self, _environment: Mapping[str, str]) -> None:
        """A program needs no secret."""

    def to_json(self) -> dict[str, Any]:
        """As a rule has it."""
        return {"command": list(self.words)}


@dataclass(frozen=True, slots=True)
class MailReceiver:
    """People who get mail.

    to: their addresses.
    sender: whom it is from.
    host, port: of the server that takes the mail.
    tls: from the beginning (tls), asked for (starttls), or none.
    user_env, password_env: the environment variables with what the server wants to know; None if it wants nothing.
    """

    to: tuple[str, ...]
    sender: str
    host: str
    port: int
    tls: str
    user_env: str | None
    password_env: str | None

    @property
    def name(self) -> str:
        """For people."""
        return ", ".join(self.to)

    def lacks(self, environment: Mapping[str, str]) -> str | None:
        """Why nothing can be sent, as a sentence; None if it can."""
        missing = [name for name in (self.user_env, self.password_env) if name and not environment.get(name)]
        return f"the environment has no {' and no '.join(missing)}, which the mail server wants." if missing else None

    def to_json(self) -> dict[str, Any]:
        """As a rule has it."""
        mail = asdict(self)
        return {"mail": {"from": mail.pop("sender"), **mail, "to": list(self.to)}}


Receiver = WebhookReceiver | CommandReceiver | MailReceiver


@dataclass(frozen=True, slots=True)
class AlertRule:
    """Whom to tell, and of what.

    kinds: what is told.
    receiver: who is told.
    stale_after: how long after the last run that ended well; None where that is not told.
    remind_after: how long after it was told it is told again, as long as it holds.
    """

    kinds: frozenset[AlertKind]
    receiver: Receiver
    stale_after: timedelta | None
    remind_after: timedelta

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Of what a manifest says. Raises KeyError, TypeError, ValueError or AttributeError for a damaged one."""
        remind_after = _duration(document["remind_after"])
        if not remind_after:
            raise ValueError("remind_after is 0s")
        return cls(
            kinds=frozenset(AlertKind(kind) for kind in document["on"]),
            receiver=receiver_of(document),
            stale_after=None if document.get("stale_after") is None else _duration(document["stale_after"]),
            remind_after=remind_after,
        )

    @property
    def key(self) -> str:
        """Stands for the receiver in notes."""
        return receiver_key(self.receiver)

    def to_json(self) -> dict[str, Any]:
        """As a manifest has it."""
        after = None if self.stale_after is None else f"{int(self.stale_after.total_seconds())}s"
        times = {"stale_after": after, "remind_after": f"{int(self.remind_after.total_seconds())}s"}
        return {"on": sorted(self.kinds), **times, **self.receiver.to_json()}


def read_rules(documents: Any) -> tuple[AlertRule, ...]:
    """Those that this program understands: a newer one's must not keep a version from being served."""
    rules = list[AlertRule]()
    for document in documents if isinstance(documents, list) else ():
        try:
            rules.append(AlertRule.of(document))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            continue
    return tuple(rules)


def receiver_of(document: Mapping[str, Any]) -> Receiver:
    """The one receiver that a rule has. Raises KeyError, TypeError, ValueError or AttributeError."""
    if (url := document.get("webhook")) is not None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError("a webhook is no address of http or https")
        return WebhookReceiver(url, _text(document["secret_env"]))
    if (words := document.get("command")) is not None:
        return CommandReceiver(tuple(_text(word) for word in words))
    mail = document["mail"]
    to, names = tuple(_text(each) for each in mail["to"]), (mail.get("user_env"), mail.get("password_env"))
    port = int(mail["port"] or PORTS[mail["tls"]])  # the first manifests lack it
    return MailReceiver(to, _text(mail["from"]), _text(mail["host"]), port, mail["tls"], *names)


def receiver_key(receiver: Receiver) -> str:
    """The same for the same receiver, wherever and whenever it is read."""
    return hashlib.sha256(canonical_json(receiver.to_json()).encode()).hexdigest()[:16]


def webhook_secrets(text: str) -> list[bytes]:
    """The bytes to sign with, of each secret in a text: the old one beside the new one, while they change. None of what is no secret."""
    return [secret for part in text.split() if len(secret := _decoded(part)) >= LEAST_SECRET]


def _decoded(text: str) -> bytes:
    """Empty for what is not base64."""
    bare = text.removeprefix(SECRET_PREFIX).rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""


def missing_secrets(rules: Iterable[AlertRule], environment: Mapping[str, str]) -> list[str]:
    """A sentence for each receiver that cannot be told as things are."""
    rules = list(rules)
    lacking = [(rule.receiver, rule.receiver.lacks(environment)) for rule in rules]
    said = [f"{receiver.name} cannot be told of anything: {why}" for receiver, why in lacking if why is not None]
    for receiver in [receiver for receiver, why in lacking if why is None and isinstance(receiver, WebhookReceiver)]:
        held = environment[receiver.secret_env]
        if len(webhook_secrets(held)) < len(held.split()):
            said.append(f"{receiver.name}: one of the secrets in {receiver.secret_env} is none, and does not sign.")
    return said


def _duration(text: str) -> timedelta:
    if not SECONDS.fullmatch(text):
        raise ValueError(f"{text!r} is no duration")
    return timedelta(seconds=int(text[:-1]))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
