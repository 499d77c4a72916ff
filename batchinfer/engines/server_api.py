"""An OpenAI-compatible API over HTTP: a request in, its JSON out, or why there is none.

Faults are told apart by whom they concern: the whole server (`Away`), one request (`Broken`, `Refused`), or the person who
runs the job (`NoEntry`).
"""

from __future__ import annotations

import contextlib
import email.utils
import io
import json
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urljoin, urlsplit

from batchinfer.core.files import os_errors
from batchinfer.core.version import __version__
from batchinfer.errors import MissingExtra, UsageError, shortened

try:
    import urllib3
    from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError
except ImportError as exc:
    raise MissingExtra("urllib3, with which servers are asked,", "openai") from exc

MOST_BYTES, PIECE = 64 << 20, 1 << 20  # of a reply; of a file that is read piece by piece
CONNECT_SECONDS = 10.0
SAID_SECONDS = 10.0  # for what a server says of an error
OK, REDIRECTED, REFUSED, BROKEN = 200, 300, 400, 500
UNFIT = (400, 413, 422)  # the request, for good
NO_KEY, FORBIDDEN, UNPAID = 401, 403, (402, 407)
GONE = (404, 405, 408, 425, 502, 504)
NOT_FOUND = 404
SHED = (429, 503)  # with or without Retry-After: too much at once
SAID = 300  # characters of what a server says that a sentence repeats
Body = bytes | BinaryIO | None


class ServerFault(Exception):
    """A request was not answered. said: why, as the rest of a sentence that begins with the server."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


class Away(ServerFault):
    """The server takes no requests now.

    wait: seconds that it asked to be left alone; None if it did not.
    is_shed: whether it is there, and only has too much to do.
    is_other: whether something answers there that is no such API, as where an address is wrong.
    """

    def __init__(self, said: str, wait: float | None = None, *, is_shed: bool = False, is_other: bool = False) -> None:
        super().__init__(said)
        self.wait, self.is_shed, self.is_other = wait, is_shed, is_other


class Missing(Away):
    """What was asked for is not there, in the words of the API itself, and not of something before it."""


class Broken(ServerFault):
    """The answer to this request went wrong, for whatever reason: it may be made again.

    is_lost: whether none came at all, so that nobody knows if there is a server.
    """

    def __init__(self, said: str, *, is_lost: bool = False) -> None:
        super().__init__(said)
        self.is_lost = is_lost


class Refused(ServerFault):
    """The server does not take this request, and never will."""


class NoEntry(ServerFault):
    """The server does not take the key, or wants to be paid."""


class Unpaid(NoEntry):
    """It wants to be paid."""


class Forbidden(NoEntry):
    """It does not take the key, or not for this request."""


class ServerApi:
    """Where an API is, and its key. Thread-safe.

    base_url: where it begins, such as http://host:8000/v1.
    """

    def __init__(self, base_url: str, key: str | None, *, connections: int, stall_seconds: float) -> None:
        """connections: that are kept open at most. stall_seconds: that an answer may take. Raises UsageError."""
        self.base_url, self._stall_seconds, self._key = base_url, stall_seconds, key
        headers = {"user-agent": f"batchinfer/{__version__}", "accept": "application/json"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        self._headers, self._pool = headers, _pool(base_url, connections)

    def get(self, path: str, *, seconds: float | None = None) -> Any:
        """What the server says of a path, as JSON. Raises a ServerFault."""
        return self._json("GET", path, None, {}, seconds)

    def post(self, path: str, content: Mapping[str, Any], *, seconds: float | None = None) -> Any:
        """What it answers to some JSON, as JSON. seconds: that it may take, if not as long as any. Raises a ServerFault."""
        return self._json("POST", path, json.dumps(content).encode(), {"content-type": "application/json"}, seconds)

    def upload(self, path: str, name: str, content: bytes, fields: Mapping[str, str]) -> Any:
        """Sends a file as a form does; what the server answers, as JSON. Raises a ServerFault."""
        file: tuple[str, str | bytes, str] = (name, content, "application/jsonl")
        body, kind = urllib3.encode_multipart_formdata([*fields.items(), ("file", file)])
        # In pieces, as of a file: bytes would have to be sent whole within the seconds that a connection may take.
        headers = {"content-type": kind, "content-length": str(len(body))}
        return self._json("POST", path, io.BytesIO(body), headers, None)

    def download(self, path: str, file: BinaryIO) -> None:
        """Writes the content of a path, which may be large, to a temporary file. Raises a ServerFault, or StoreError.

        It may lie at another address, as in a store, which does not get the key.
        """
        with self._reply("GET", path, None, {}, None, follows=True) as reply:
            for piece in reply.stream(PIECE):
                with os_errors(Path(tempfile.gettempdir())):
                    file.write(piece)

    def close(self) -> None:
        self._pool.clear()

    def _json(self, method: str, path: str, body: Body, headers: Mapping[str, str], seconds: float | None) -> Any:
        deadline = time.monotonic() + (seconds or self._stall_seconds)
        with self._reply(method, path, body, headers, seconds) as reply:
            content = _content(reply, deadline)
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as exc:
            if content.lstrip()[:1] == b"<":
                raise Away("answers with a page of HTML instead of JSON", is_other=True) from exc
            raise Broken("sent half a reply, or something else than JSON") from exc

    @contextlib.contextmanager
    def _reply(
        self,
        method: str,
        path: str,
        body: Body,
        headers: Mapping[str, str],
        seconds: float | None,
        *,
        follows: bool = False,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """A reply that is no fault. Raises a ServerFault, also where reading it fails."""
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=seconds or self._stall_seconds)
        try:
            url = f"{self.base_url}{path}"
            reply = self._sent(method, url, body, {**self._headers, **headers}, timeout)
            if follows and (elsewhere := reply.get_redirect_location()):
                reply.drain_conn()
                url = urljoin(url, elsewhere)
                reply = self._sent("GET", url, None, self._headers if self._is_here(url) else {}, timeout)
            if not OK <= reply.status < REDIRECTED:
                content = self._without_key(_content(reply, time.monotonic() + SAID_SECONDS))
                raise _fault(reply.status, reply.headers, content)
            yield reply
            reply.release_conn()
        except ReadTimeoutError as exc:
            raise Broken(f"did not answer within {timeout.read_timeout:g} s", is_lost=True) from exc
        except ProtocolError as exc:
            if any(isinstance(each, TimeoutError) for each in exc.args):
                raise Broken(f"took nothing of what was sent to it for {CONNECT_SECONDS:g} s", is_lost=True) from exc
            raise Broken("broke off the connection in the middle of a reply", is_lost=True) from exc
        except (HTTPError, OSError) as exc:
            raise Away(f"cannot be reached: {_words(exc)}") from exc

    def _sent(
        self, method: str, url: str, body: Body, headers: Mapping[str, str], timeout: urllib3.Timeout
    ) -> urllib3.BaseHTTPResponse:
        return self._pool.request(
            method,
            url,
            body=body,
            headers=headers,
            timeout=timeout,
            retries=False,
            redirect=False,
            preload_content=False,
        )

    def _without_key(self, content: bytes) -> bytes:
        """What a server says, without the key, that it may repeat: it goes into logs, and is stored with rows."""
        return content.replace(self._key.encode(), b"...") if self._key else content

    def _is_here(self, url: str) -> bool:
        """Whether an address is of the same server, by the same protocol."""
        return urlsplit(url)[:2] == urlsplit(self.base_url)[:2]


def _pool(base_url: str, connections: int) -> urllib3.PoolManager:
    """Connections to a server, by way of the proxy that the environment names for it. Raises UsageError for one that is none."""
    address, proxies = urlsplit(base_url), urllib.request.getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(str(address.hostname)):
        return urllib3.PoolManager(num_pools=1, maxsize=connections)
    try:
        said = urllib3.util.parse_url(proxy).auth
        headers = urllib3.make_headers(proxy_basic_auth=unquote(said)) if said else None
        return urllib3.ProxyManager(proxy, num_pools=1, maxsize=connections, proxy_headers=headers)
    except (HTTPError, ValueError) as exc:  # without its text, which may hold a password
        raise UsageError(
            f"The proxy that the environment names for {address.scheme} is no address that begins with http:// or https://: correct "
            f"{address.scheme.upper()}_PROXY or ALL_PROXY, or name {address.hostname} in NO_PROXY."
        ) from exc


def _content(reply: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    """The whole body, which is to be there by then: one that comes byte by byte holds up others."""
    content = bytearray()
    while piece := reply.read1(PIECE):
        content += piece
        if len(content) > MOST_BYTES:
            reply.close()
            raise Broken(f"sent a reply of more than {MOST_BYTES >> 20} MiB")
        if time.monotonic() > deadline:
            reply.close()
            raise Broken("did not come to the end of its answer in time", is_lost=True)
    return bytes(content)


def _fault(status: int, headers: Mapping[str, str], content: bytes) -> ServerFault:
    """What a status means that is no success."""
    said, reason = f"answers with HTTP {status}", error_message(content)
    if REDIRECTED <= status < REFUSED and (elsewhere := headers.get("location")):
        said += f", and sends on to {shortened(elsewhere.partition('?')[0])}"
    told = f"{said}: {reason}" if reason else said
    if status == NO_KEY or status in UNPAID:  # of a key without its words, that may repeat it
        return Unpaid(told) if status in UNPAID else NoEntry(f"does not take the key (HTTP {status})")
    if status == FORBIDDEN:
        return Forbidden(f"does not take the key (HTTP {status}{reason and ': '}{reason})")
    if status in SHED:
        busy = f"has too much to do (HTTP {status}{reason and ': '}{reason})"
        return Away(busy, _retry_after(headers.get("retry-after")), is_shed=True)
    if status == NOT_FOUND and reason:
        return Missing(told, is_other=True)
    if status in GONE or status < REFUSED:
        return Away(told, is_other=status < BROKEN)
    return Refused(reason or f"it {said}") if status in UNFIT else Broken(told)


def refusal_of(response: Mapping[str, Any]) -> Refused | None:
    """Why a request within a batch was refused for good; None if it was answered. Raises Broken where it may be made again."""
    status = int(response["status_code"])
    if OK <= status < REDIRECTED:
        return None
    fault = _fault(status, {}, json.dumps(response.get("body")).encode())
    if isinstance(fault, Refused):
        return fault
    raise Broken(fault.said)


def error_message(content: bytes) -> str:
    """What a server says of an error, in one line; empty if that cannot be read."""
    try:
        found = json.loads(content)
        found = found[0] if isinstance(found, list) else found
        error = found.get("error", found)
        said = error if isinstance(error, str) else error.get("message") or found.get("detail") or ""
    except (ValueError, LookupError, AttributeError, RecursionError):
        return ""
    return shortened(" ".join(str(said).split()), SAID).rstrip(".")


def _retry_after(header: str | None) -> float | None:
    """Seconds; None without a header, or with one that says nothing."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header.strip()[:9])
    try:
        parsed = email.utils.parsedate_tz(header)
        return None if parsed is None else max(email.utils.mktime_tz(parsed) - time.time(), 0.0)
    except (ValueError, OverflowError):  # a date that no calendar has
        return None


def _words(exc: BaseException) -> str:
    """Why a connection failed, in a few words, without addresses of objects."""
    kind = type(exc).__name__
    if kind == "NameResolutionError":
        return "its name is not known"
    if kind == "ConnectTimeoutError":
        return f"no connection within {CONNECT_SECONDS:g} s"
    cause = exc.__cause__ or exc.__context__ or exc
    said = getattr(cause, "strerror", None) or str(cause).rpartition(": ")[2]
    return (str(said) or kind)[:SAID].lower().rstrip(".")
