"""The section alerts of the job file: who is told when the job needs somebody, and of what."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_serializer, model_validator

from batchinfer.core.fields import Duration, NonEmpty, Section, distinct

LEAST_TIME, LEAST_REMINDER = timedelta(minutes=1), timedelta(days=1)
PORTS = {"none": 25, "starttls": 587, "tls": 465}
LOOPBACK = ("localhost", "127.0.0.1", "::1")
AlertName = Literal["failed", "refused", "stale", "recovered"]


def _longer(value: timedelta) -> timedelta:
    if value < LEAST_TIME:
        raise ValueError("must be a minute or more")
    return value


def _seldom(value: timedelta) -> timedelta:
    if value < LEAST_REMINDER:
        raise ValueError("must be a day or more: who is reminded all the time stops to look")
    return value


def _web_address(url: str) -> str:
    try:
        parts = urlsplit(url)
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or (parts.port or 1) < 1
    except ValueError:
        wrong = True
    if wrong or not url.isascii() or re.search(r"\s", url):
        raise ValueError("must be an address such as https://example.org/hook")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must have no name and no password in it: the job file is published")
    return url


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII):
        raise ValueError("must be the name of an environment variable, such as ALERTS_SECRET, not the secret itself")
    return name


def _mail_address(address: str) -> str:
    if not re.fullmatch(r"[^@\s<>,;\"]+@[^@\s<>,;\"]+", address):
        raise ValueError(f"{address!r} must be a mail address, such as ops@example.org")
    return address


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


AlertDelay = Annotated[Duration, AfterValidator(_longer)]
Variable = Annotated[str, AfterValidator(_variable)]
MailAddress = Annotated[str, AfterValidator(_mail_address)]
CommandWord = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")]


class MailSpec(Section):
    """Mail by SMTP."""

    to: Annotated[list[MailAddress], Field(min_length=1), BeforeValidator(_as_list), AfterValidator(distinct)] = Field(
        description="Who gets it: an address, or several."
    )
    from_: MailAddress = Field(alias="from", description="The address that it is from.")
    host: NonEmpty = Field(description="The server that takes it.")
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="Its port; 587 for starttls, 465 for tls and 25 for none unless given."
    )
    tls: Literal["starttls", "tls", "none"] = Field(
        "starttls",
        description="Whether the connection becomes secret (starttls), is so from the beginning (tls), or never.",
    )
    user_env: Variable | None = Field(None, description="The environment variable with the user's name at that server.")
    password_env: Variable | None = Field(None, description="The one with the password.")

    @field_serializer("port")
    def _port(self, port: int | None) -> int:
        return port or PORTS[self.tls]

    @model_validator(mode="after")
    def _whole(self) -> MailSpec:
        if (self.user_env is None) != (self.password_env is None):
            raise ValueError("user_env and password_env belong together")
        if self.password_env is not None and self.tls == "none" and self.host not in LOOPBACK:
            raise ValueError("a password goes over no connection that others can read: use tls: starttls or tls")
        return self


class AlertSpec(Section):
    """Whom to tell, and of what. Each has one receiver: `webhook`, `command` or `mail`."""

    on: Annotated[list[AlertName], Field(min_length=1), AfterValidator(distinct)] = Field(
        ["failed", "refused", "stale", "recovered"],
        description="What is told: a run failed, the gate refused its version, no run ended well for `stale_after`, all is well again.",
    )
    stale_after: AlertDelay | None = Field(
        None, description="How long after the last run that ended well; needed for stale."
    )
    remind_after: Annotated[Duration, AfterValidator(_seldom)] = Field(
        timedelta(days=7), description="How long after that it is told again, as long as nobody has mended it."
    )
    webhook: Annotated[str, AfterValidator(_web_address)] | None = Field(
        None, description="An address that is sent the event, signed as Standard Webhooks has it."
    )
    secret_env: Variable | None = Field(
        None, description="With webhook: the environment variable with the secret to sign with, `whsec_` and base64."
    )
    command: Annotated[list[CommandWord], Field(min_length=1)] | None = Field(
        None, description="A program and its arguments; it gets the event as JSON on standard input."
    )
    mail: MailSpec | None = Field(None, description="Mail by SMTP.")

    @model_validator(mode="after")
    def _one_receiver(self) -> AlertSpec:
        if (self.webhook, self.command, self.mail).count(None) != 2:  # noqa: PLR2004 - of three
            raise ValueError("needs one of webhook, command and mail")
        if (self.webhook is None) != (self.secret_env is None):
            raise ValueError("webhook and secret_env belong together: nothing is sent unsigned")
        if "stale" in self.on and self.stale_after is None:
            raise ValueError("stale needs stale_after, such as stale_after: 8d for a job that runs weekly")
        if "stale" not in self.on and self.stale_after is not None:
            raise ValueError("stale_after goes with stale: add that to on")
        if set(self.on) == {"recovered"}:
            raise ValueError("recovered alone tells of nothing: add failed, refused or stale to on")
        return self

    @property
    def receiver_name(self) -> str:
        """What tells the receivers of a job apart."""
        return self.webhook or " ".join(self.command or ()) or (self.mail.model_dump_json() if self.mail else "")
