"""Looks up and matches over HTTP: one service, one job, a pool of connections.

Queries are checked here, by the very code and with the very sentences that reading a folder has. For that the job's
lookup key is asked for once, again when another version has answered, and again before a query is refused.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlencode

import urllib3
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import HTTPError, LocationParseError, MaxRetryError, ProtocolError
from urllib3.util.retry import RequestHistory

from batchinfer import errors
from batchinfer.client.encoding import as_json, as_text, each_as_json, in_portions, text_as_json
from batchinfer.client.types import POOL_SIZE, LookupOutcome, Result
from batchinfer.core.columns import Column
from batchinfer.core.files import why_damaged
from batchinfer.core.http_limits import MAX_TEXTS, MAX_URL
from batchinfer.core.version import __version__
from batchinfer.errors import BatchinferError, NotFound, NotPublished, StoreError, UsageError
from batchinfer.versions.query import QueryReader

AGAIN = (502, 503, 504)
BACKOFF_SECONDS = 0.05  # no wait before the first repetition, twice this before the second, then doubled with each


class _TooLarge(UsageError):
    """The batch, or what it would be answered with."""


MISS = "urn:batchinfer:miss"
NO_KEY = "urn:batchinfer:no-key"
NOT_PUBLISHED = "urn:batchinfer:not-published"
REFUSALS: Mapping[str, type[BatchinferError]] = {
    "urn:batchinfer:unknown-job": NotFound,
    NOT_PUBLISHED: NotPublished,
    "urn:batchinfer:no-match-section": UsageError,
    "urn:batchinfer:bad-query": UsageError,
    "urn:batchinfer:bad-body": UsageError,
    "urn:batchinfer:too-large": _TooLarge,
    "urn:batchinfer:long-url": UsageError,
    NO_KEY: UsageError,
    "urn:batchinfer:forbidden": UsageError,
}

Checked = TypeVar("Checked")
QUERIES = b'{"queries":[%b]}'


class _Retry(urllib3.Retry):
    """Sends again what failed, and what the service asks to be sent again, within the limits of a Lookup.

    A job that was never published is no reason to. A connection that broke off is made again once, beside the tries that
    are allowed: the service closes one that idles, and may do so just as it is used again.
    """

    RETRY_AFTER_STATUS_CODES = frozenset()  # the header alone is no reason

    @classmethod
    def of(cls, retries: int, timeout: float) -> _Retry:
        return cls(
            retries, status_forcelist=AGAIN, allowed_methods=None, raise_on_status=False, respect_retry_after_header=True,
            backoff_factor=BACKOFF_SECONDS, backoff_jitter=BACKOFF_SECONDS, backoff_max=timeout,
        )  # fmt: skip

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: urllib3.BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        if response is not None and _never_published(response):
            raise MaxRetryError(_pool, url or "", None)  # type: ignore[arg-type]  # the pool returns the response then
        broke = [past.error for past in self.history if isinstance(past.error, ProtocolError)]
        if isinstance(error, ProtocolError) and not broke:
            return self.new(history=(*self.history, RequestHistory(method, url, error, None, None)))
        return super().increment(method, url, response, error, _pool, _stacktrace)

    def parse_retry_after(self, retry_after: str) -> float:
        """Seconds: never more than the time-out, and none for what is no number."""
        return min(float(retry_after), self.backoff_max) if retry_after.isdecimal() else 0.0


@dataclass(frozen=True, slots=True)
class _LookupKey:
    """The lookup key.

    version: the version whose key it is.
    reader: reads queries against it.
    """

    version: int
    reader: QueryReader


class HttpBackend:
    """Asks a service. See `client.Lookup` for what it is made with."""

    def __init__(self, url: str, job: str, *, key: str | None, timeout: float, retries: int) -> None:
        """Raises UsageError."""
        if timeout <= 0 or retries < 0:
            raise UsageError("A Lookup's timeout must be above 0, and its retries 0 or more.")
        if key is not None and not (key.isascii() and key.isprintable()):
            raise UsageError("The API key has characters that no API key can have: copy it again.")
        self._url, self._job, self._timeout, self._retries = url.rstrip("/"), job, timeout, retries
        self._retry = _Retry.of(retries, timeout)
        self._headers = {"user-agent": f"batchinfer/{__version__}"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        self._path = f"{_prefix(self._url)}/v1/jobs/{job}"
        self._pool = self._connect()
        self._known: _LookupKey | None = None
        self._version: int | None = None

    def _connect(self) -> urllib3.HTTPConnectionPool:
        """Opens no connection yet."""
        return urllib3.connection_from_url(
            self._url, maxsize=POOL_SIZE, headers=self._headers, timeout=urllib3.Timeout(self._timeout)
        )

    @property
    def version(self) -> int:
        return self._version if self._version is not None else self._learn().version

    def get(self, query: Mapping[str, Any]) -> dict[str, Any] | None:
        reader, values = self._checked(lambda reader: reader.from_values(query))
        columns = zip(reader.names, [as_text(value) for value in values], strict=True)
        target = f"{self._path}/lookup?{urlencode(list(columns))}"
        if len(target) > MAX_URL:
            [outcome] = self._batch("lookup", QUERIES, [as_json(reader, values)], _outcome)
            if isinstance(outcome, UsageError):
                raise outcome
            return outcome
        data = self._ask("GET", target)
        return None if data is None else self._content(data)

    def get_many(self, queries: list[Mapping[str, Any]]) -> list[LookupOutcome]:
        encoded = self._encoded(queries)
        fit = [item for item in encoded if not isinstance(item, UsageError)]
        found = iter(
            [outcome for batch in in_portions(fit) for outcome in self._batch("lookup", QUERIES, batch, _outcome)]
        )
        return [item if isinstance(item, UsageError) else next(found) for item in encoded]

    def _encoded(self, queries: list[Mapping[str, Any]]) -> list[bytes | UsageError]:
        """Each query as a batch has it, or why the latest lookup key does not fit it."""
        if self._known is not None:
            encoded = each_as_json(self._known.reader, queries)
            if not any(isinstance(item, UsageError) for item in encoded):
                return encoded
        return each_as_json(self._learn().reader, queries)

    def match_many(self, texts: list[str], languages: tuple[str, ...], *, utf16: bool) -> list[dict[str, Any]]:
        restricted = f',"languages":{json.dumps(languages)}' if languages else ""
        counted = ',"offsets":"utf16"' if utf16 else ""
        frame = f'{{"texts":[%b]{restricted}{counted}}}'.encode()
        encoded = [text_as_json(text, len(frame)) for text in texts]
        # Also without texts: a job without a match section is an error.
        portions = list(in_portions(encoded, len(frame), MAX_TEXTS)) or [[]]
        return [result for batch in portions for result in self._batch("match", frame, batch, _matches)]

    def gets_at_once(self, count: int) -> bool:  # noqa: ARG002 - the service is waited for in any case
        return False

    def matches_at_once(self, texts: Sequence[str]) -> bool:  # noqa: ARG002
        return False

    def _batch(
        self, route: str, frame: bytes, items: list[bytes], read: Callable[[dict[str, Any], int], Result]
    ) -> list[Result]:
        """What `read` makes of each result and the version. frame: the body around the items."""
        try:
            data = self._ask("POST", f"{self._path}/{route}", frame % b",".join(items))
        except _TooLarge:  # what is found is long
            middle = len(items) // 2
            if not middle:
                raise
            halves = items[:middle], items[middle:]
            return [result for half in halves for result in self._batch(route, frame, half, read)]
        with self._understood():
            content = self._content(data or b"")
            self._version = version = int(content["version"])
            results = [read(result, version) for result in content["results"]]
            if len(results) != len(items):
                raise ValueError(f"{len(results)} results for {len(items)} queries")
            return results

    def _checked(self, check: Callable[[QueryReader], Checked]) -> tuple[QueryReader, Checked]:
        """What `check` makes of the job's lookup key. Raises UsageError, if it still does with the latest."""
        known = self._known
        if known is not None:
            with contextlib.suppress(UsageError):
                return known.reader, check(known.reader)
        reader = self._learn().reader
        return reader, check(reader)

    def _learn(self) -> _LookupKey:
        """Asks for the lookup key. Raises NotFound, StoreError, or UsageError for a key that may not ask."""
        state = self._state()
        if state["version"] is None and state["problem"] is not None:
            raise StoreError(f"{self._url} can serve nothing of the job {self._job}: {state['problem']}")
        if state["version"] is None:  # the service may just be starting
            with contextlib.suppress(UsageError):  # it is open by now, and a query without columns is refused
                self._ask("GET", f"{self._path}/lookup")
            state = self._state()
        if state["version"] is None:
            raise NotPublished(f"The job {self._job} has no published version yet.")
        with self._understood():
            columns = [Column(column["name"], column["kind"]) for column in state["key"]]
            known = _LookupKey(int(state["version"]), QueryReader(self._job, columns, ()))
        self._known, self._version = known, known.version
        return known

    def _state(self) -> dict[str, Any]:
        data = self._ask("GET", self._path)
        with self._understood():
            state = self._content(data or b"")
            return {name: state[name] for name in ("version", "problem", "key")}

    def _ask(self, method: str, target: str, body: bytes | None = None) -> bytes | None:
        """The body of an answer, or None for a miss. Raises what the service's problem stands for."""
        reply = self._send(method, target, body)
        version = reply.headers.get("batchinfer-version", "")
        if version.isdecimal():
            self._version = int(version)
            if self._known is not None and self._known.version != self._version:
                self._known = None
        if reply.status == 200:  # noqa: PLR2004
            return reply.data
        problem = self._problem(reply)
        kind, detail = str(problem.get("type")), problem.get("detail") or reply.reason or "no reason"
        if kind == MISS:
            return None
        if kind == NO_KEY and "authorization" not in self._headers:
            raise UsageError(f"{self._url} requires an API key", fix="pass key=, made by batchinfer keys add.")
        if kind in REFUSALS:
            raise REFUSALS[kind](str(detail))
        raise StoreError(f"{self._url} answered with the status {reply.status}: {errors.shortened(str(detail), 300)}")

    def _send(self, method: str, target: str, body: bytes | None) -> urllib3.BaseHTTPResponse:
        """An answer, from as many tries as are allowed. Raises StoreError where none came."""
        headers = self._headers if body is None else self._headers | {"content-type": "application/json"}
        try:
            return self._pool.request(method, target, body=body, headers=headers, retries=self._retry, redirect=False)
        except HTTPError as exc:
            reason = exc.reason if isinstance(exc, MaxRetryError) and exc.reason is not None else exc
            often = f" after {self._retries + 1} tries" if self._retries else ""
            raise StoreError(f"{self._url} cannot be reached{often}: {reason.__cause__ or reason}.") from exc

    def _problem(self, reply: urllib3.BaseHTTPResponse) -> dict[str, Any]:
        """What a refusal says, if it is the service that refuses and not something before it."""
        try:
            return self._content(reply.data)
        except StoreError:
            return {}

    def _content(self, data: bytes) -> dict[str, Any]:
        with self._understood():
            content = json.loads(data)
            if not isinstance(content, dict):
                raise TypeError("no JSON object")
            return content

    @contextlib.contextmanager
    def _understood(self) -> Iterator[None]:
        """Raises StoreError if an answer is not what this service gives."""
        try:
            yield
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise StoreError(
                f"{self._url} gave a reply that this batchinfer does not understand ({why_damaged(exc)}): "
                "is it the address of a batchinfer service, and no newer than this program?"
            ) from exc

    def close(self) -> None:
        self._pool.close()

    def after_fork(self) -> None:
        """The connections are the parent's: a child that used them would get its answers."""
        self._pool = self._connect()


def _never_published(response: urllib3.BaseHTTPResponse) -> bool:
    """Whether a job has no version yet, for which a service that knows so asks nobody to wait."""
    return "retry-after" not in response.headers and NOT_PUBLISHED.encode() in response.data


def _prefix(url: str) -> str:
    """The path before the service's own, as a proxy may want it. Raises UsageError for what is no address."""
    with contextlib.suppress(LocationParseError):
        parts = urllib3.util.parse_url(url)
        if parts.scheme in ("http", "https") and parts.host and not parts.query and not parts.fragment:
            return parts.path or ""
    raise UsageError(f"{url} is not the address of a service: write http://HOST:PORT.")


def _outcome(result: dict[str, Any], _version: int) -> LookupOutcome:
    if "error" in result:
        return UsageError(str(result["error"]["detail"]))
    return result if result.pop("found") else None


def _matches(result: dict[str, Any], version: int) -> dict[str, Any]:
    return {"matches": result["matches"], "version": version}
