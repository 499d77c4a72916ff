"""Sends an event as a signed request, as Standard Webhooks has it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from email.message import Message
from typing import Any

from batchinfer.alerts.connecting import connected
from batchinfer.alerts.outcome import Outcome
from batchinfer.alerts.rules import WebhookReceiver, webhook_secrets
from batchinfer.core.version import __version__

AGAIN = (408, 425, 429)  # of the 4xx that say that the request is wrong, these say that the moment is
OK, REDIRECTED, REFUSED, BROKEN = 200, 300, 400, 500
MOST_WAIT = 6 * 3600.0  # seconds that a receiver may ask to be left alone


def send_webhook(
    receiver: WebhookReceiver, event_id: str, body: str, environment: Mapping[str, str], now: datetime, seconds: float
) -> Outcome:
    """One try. seconds: for all of it; who calls ends it then."""
    secrets = webhook_secrets(environment.get(receiver.secret_env, ""))
    if not secrets:
        return Outcome(said=str(receiver.lacks(environment)))
    content = body.encode()
    headers = signed_headers(event_id, content, secrets, now)
    request = urllib.request.Request(receiver.url, content, headers, method="POST")  # noqa: S310 - rules take only http and https
    try:
        with urllib.request.build_opener(_Stay, _Http, _Https).open(request, timeout=seconds) as reply:
            return _judged(reply.status, reply.headers)
    except urllib.error.HTTPError as exc:
        with exc:
            return _judged(exc.code, exc.headers)
    except (OSError, http.client.HTTPException, ValueError) as exc:
        reason = exc.reason if isinstance(exc, urllib.error.URLError) else exc
        return Outcome(said=f"it cannot be reached: {_words(reason)}.")


def signed_headers(event_id: str, content: bytes, secrets: Sequence[bytes], now: datetime) -> dict[str, str]:
    """What tells the receiver who sent it, and that nobody changed it."""
    at = str(int(now.timestamp()))
    signed = b".".join([event_id.encode(), at.encode(), content])
    digests = [hmac.new(secret, signed, hashlib.sha256).digest() for secret in secrets]
    return {
        "content-type": "application/json",
        "user-agent": f"batchinfer/{__version__}",
        "webhook-id": event_id,
        "webhook-timestamp": at,
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
    }


class _Http(urllib.request.HTTPHandler):
    """Connects by `connected`."""

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_by(http.client.HTTPConnection), request)


class _Https(urllib.request.HTTPSHandler):
    """Connects by `connected`."""

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_by(http.client.HTTPSConnection), request)


def _by(kind: Callable[..., http.client.HTTPConnection]) -> Callable[..., http.client.HTTPConnection]:
    """Such connections, made by `connected`."""

    def make(*args: Any, **kwargs: Any) -> http.client.HTTPConnection:
        made = kind(*args, **kwargs)
        made._create_connection = connected  # type: ignore[attr-defined] # noqa: SLF001 - the only way in
        return made

    return make


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nobody elsewhere: what is signed is for the address that the job names."""

    def redirect_request(self, *_: object) -> None:
        return None


def _judged(status: int, headers: Message) -> Outcome:
    if OK <= status < REDIRECTED:
        return Outcome(delivered=True)
    if REDIRECTED <= status < REFUSED:
        return Outcome(
            said=f"it answered {status}, and redirects are not followed: name the address that it leads to.",
            lasting=True,
        )
    wait = headers.get("retry-after", "")
    seconds = min(float(wait), MOST_WAIT) if wait.isdecimal() else 0.0
    return Outcome(
        said=f"it answered {status}.", lasting=REFUSED <= status < BROKEN and status not in AGAIN, wait=seconds
    )


def _words(reason: object) -> str:
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason) or type(reason).__name__
