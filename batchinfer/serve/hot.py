"""The hot path: one prediction for one query. It answers with the bytes that publishing made, and builds no JSON.

A look-up is: take the job's open version, read the query, hash it, get the body from LMDB. Everything else that a
reply needs was made when the version was opened, but for the ETag, a hash of the body: so it survives a publish
that did not change the entry.
"""

from __future__ import annotations

import hashlib
import logging
from time import perf_counter
from typing import Any

from batchinfer.errors import UsageError
from batchinfer.serve.auth import Guard
from batchinfer.serve.board import Desk, Open
from batchinfer.serve.metrics import Series, Tally
from batchinfer.serve.problems import Problem, Reply

log = logging.getLogger("batchinfer.serve")
MAX_URL = 8192  # bytes of path and query


class LookupRoute:
    """GET /v1/jobs/{job}/lookup of one job, as an ASGI application without a router before it."""

    def __init__(self, desk: Desk, guard: Guard, tally: Tally) -> None:
        self._desk, self._guard, self._tally = desk, guard, tally
        self._most_query = MAX_URL - len(f"/v1/jobs/{desk.job}/lookup")
        self._hits = tally.series[desk.job, "lookup", "200"]
        self._not_found = tally.series[desk.job, "lookup", "404"]
        self._unchanged = tally.series[desk.job, "lookup", "304"]
        self._counters = tally.counters
        self._hit_counter, self._miss_counter = ("hits", desk.job), ("misses", desk.job)
        self._counters[self._hit_counter] += 0
        self._counters[self._miss_counter] += 0

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        began = perf_counter()
        try:
            (start, body), series = self._answer(scope)
        except Problem as problem:
            (start, body), series = self._refusal(problem)
        except Exception:  # a bug must not cost the client its answer, nor the log its trace
            log.exception("a look-up in %s failed", self._desk.job)
            (start, body), series = self._refusal(Problem("broken", "The service failed; its log says more."))
        await send(start)
        await send(body)
        series.observe(perf_counter() - began)

    def _refusal(self, problem: Problem) -> tuple[Reply, Series]:
        return problem.messages(), self._tally.series[self._desk.job, "lookup", str(problem.status)]

    def _answer(self, scope: Any) -> tuple[Reply, Series]:
        headers, query = scope["headers"], scope["query_string"]
        if self._guard.required:
            self._guard.check(headers, self._desk.job)
        opened = self._desk.open or self._desk.opened()
        if len(query) > self._most_query:
            raise Problem("long-url", f"The URL has more than {MAX_URL:,} bytes: ask with POST.")
        try:
            values = opened.reader.from_url(query)
            body = opened.snapshot.find(opened.reader.key(values))
        except UsageError as exc:
            raise Problem("bad-query", str(exc)) from exc
        if body is None:
            self._counters[self._miss_counter] += 1
            if opened.misses is not None:
                opened.misses.add(values)
            return opened.miss, self._not_found
        self._counters[self._hit_counter] += 1
        etag = etag_of(body)
        for name, value in headers:
            if name == b"if-none-match" and matches(value, etag):
                return not_modified(opened, etag), self._unchanged
        return hit(opened, etag, body), self._hits


def etag_of(body: bytes) -> bytes:
    """The strong ETag of a body."""
    return b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode()


def matches(condition: bytes, etag: bytes) -> bool:
    """Whether an If-None-Match names this ETag; it compares weakly (RFC 9110, 13.1.2)."""
    named = [part.strip().removeprefix(b"W/") for part in condition.split(b",")]
    return etag in named or named == [b"*"]


def hit(opened: Open, etag: bytes, body: bytes) -> Reply:
    """200 with the body."""
    headers = (*opened.headers, (b"etag", etag), (b"content-length", b"%d" % len(body)))
    return (
        {"type": "http.response.start", "status": 200, "headers": headers},
        {"type": "http.response.body", "body": body},
    )


def not_modified(opened: Open, etag: bytes) -> Reply:
    """304 without one."""
    headers = (*opened.headers[1:], (b"etag", etag))
    return {"type": "http.response.start", "status": 304, "headers": headers}, {
        "type": "http.response.body",
        "body": b"",
    }
