"""The hot path: one prediction for one query. It answers with the bytes that publishing made, and builds no JSON.

A look-up is: take the job's open version, read the query, hash it, get the body from LMDB. Everything else that a
reply needs was made when the version was opened, but for the ETag, a hash of the body: so it survives a publish
that did not change the entry.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable

from batchinfer.core.http_limits import MAX_URL
from batchinfer.errors import UsageError
from batchinfer.serve.auth import Authenticator
from batchinfer.serve.metrics import WorkerMetrics
from batchinfer.serve.problems import Problem, Reply
from batchinfer.serve.registry import ServedJob

log = logging.getLogger("batchinfer.serve")


class LookupRoute:
    """GET /v1/jobs/{job}/lookup of one job."""

    def __init__(self, desk: ServedJob, guard: Authenticator, tally: WorkerMetrics) -> None:
        self._desk, self._guard = desk, guard
        self._room = MAX_URL - len(f"/v1/jobs/{desk.job}/lookup")
        self._counters = tally.counters
        self._hits, self._misses = ("hits", desk.job), ("misses", desk.job)
        for counter in (self._hits, self._misses):
            self._counters[counter] += 0  # so that it is there before it is first counted
        self._series = {status: tally.series[desk.job, "lookup", str(status)] for status in (200, 304, 404)}
        self._tally = tally

    def answer(self, query: bytes, header: Callable[[str], str | None]) -> Reply:
        """query: of the URL, as it came; header: gives the request's header of a name, which costs a little each time."""
        try:
            return self._answer(query, header)
        except Problem as problem:
            return problem.answer()
        except Exception:  # a bug must not cost the client its answer, nor the log its trace
            log.exception("a look-up in %s failed", self._desk.job)
            return Problem("broken", "The service failed; its log says more.").answer()

    def _answer(self, query: bytes, header: Callable[[str], str | None]) -> Reply:
        if self._guard.required:
            self._guard.check(header("authorization"), self._desk.job)
        opened = self._desk.open or self._desk.opened()
        if len(query) > self._room:
            raise Problem("long-url", f"The URL has more than {MAX_URL:,} bytes: ask with POST.")
        try:
            values = opened.reader.from_url(query)
            body = opened.snapshot.find(opened.reader.key(values))
        except UsageError as exc:
            raise Problem("bad-query", str(exc)) from exc
        if body is None:
            self._counters[self._misses] += 1
            if opened.misses is not None:
                opened.misses.add(values)
            return opened.miss
        self._counters[self._hits] += 1
        etag = etag_of(body)
        condition = header("if-none-match")
        if condition is not None and matches(condition, etag):
            return 304, [*opened.headers[1:], ("etag", etag)], b""
        return 200, [*opened.headers, ("etag", etag)], body

    def observe(self, status: int, seconds: float) -> None:
        """Counts an answer, and the time that it took."""
        series = self._series.get(status) or self._tally.series[self._desk.job, "lookup", str(status)]
        series.observe(seconds)


def etag_of(body: bytes) -> str:
    """The strong ETag of a body."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def matches(condition: str, etag: str) -> bool:
    """Whether an If-None-Match names this ETag; it compares weakly (RFC 9110, 13.1.2)."""
    named = [part.strip().removeprefix("W/") for part in condition.split(",")]
    return etag in named or named == ["*"]
