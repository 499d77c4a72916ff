"""Single look-ups, the path that must be fast: it answers with the bytes that publishing made, and builds no JSON.

A look-up is: take the job's open version, read the query, hash it, get the body from LMDB. Everything else that a
reply needs was made when the version was opened, but for the ETag, a hash of the body: so it survives a publish
that did not change the entry.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Any

from batchinfer.core.http_limits import MAX_ENTRY, MAX_URL
from batchinfer.core.open_file import DamagedFile
from batchinfer.errors import UsageError
from batchinfer.serve.auth import Authenticator
from batchinfer.serve.beside import Beside
from batchinfer.serve.metrics import WorkerMetrics
from batchinfer.serve.problems import DAMAGED, SOON, Problem, Reply
from batchinfer.serve.served_job import OpenVersion, ServedJob
from batchinfer.versions.tree import NO_LIMIT, LongEntry

TOO_LARGE = f"The prediction has more than {MAX_ENTRY:,} bytes: read it from the version's Parquet file."
AT_ONCE = 2 << 20  # bytes of an entry that the event loop reads itself, in a few milliseconds
Header = Callable[[str], str | None]
log = logging.getLogger("batchinfer.serve")


class LookupRoute:
    """GET /v1/jobs/{job}/lookup of one job."""

    def __init__(self, job: ServedJob, authenticator: Authenticator, metrics: WorkerMetrics) -> None:
        self._job, self._authenticator, self._metrics = job, authenticator, metrics
        self.path = lookup_path(job.name)
        self._room = MAX_URL - len(self.path)
        self._counters = metrics.counters
        self._hits, self._misses = ("hits", job.name), ("misses", job.name)
        self._answers, self._abstentions = ("student_answers", job.name), ("student_abstentions", job.name)
        for counter in (self._hits, self._misses, self._answers, self._abstentions):
            self._counters[counter] += 0  # so that it is there before it is first counted
        self._series = {status: metrics.series[job.name, "lookup", str(status)] for status in (200, 304, 404)}

    def answer(self, query: bytes, header: Header, most: int = AT_ONCE) -> Reply | None:
        """None for an entry of more than `most` bytes, which takes too long for the event loop: `answer_large` reads it.

        query: of the URL, as it came; header: gives the request's header of a name, which costs a little each time.
        """
        try:
            return self._answer(query, header, most)
        except LongEntry:
            return None
        except Problem as problem:
            return problem.answer()
        except Exception:  # a bug must not cost the client its answer, nor the log its trace
            log.exception("a look-up in %s failed", self._job.name)
            return Problem("broken", "The service failed; its log says more.").answer()

    async def answer_large(self, query: bytes, header: Header, beside: Beside) -> Reply:
        """The same for an entry of any size, which is read and hashed beside the event loop."""
        sent = {name: header(name) for name in ("authorization", "if-none-match")}
        try:
            reply = await beside(self.answer, query, sent.get, NO_LIMIT)
        except Problem as problem:
            return problem.answer()
        assert reply is not None
        return reply

    def _answer(self, query: bytes, header: Header, most: int) -> Reply:
        if self._authenticator.required:
            self._authenticator.check(header("authorization"), self._job.name)
        opened = self._job.open_version()
        if len(query) > self._room:
            raise Problem("long-url", f"The URL has more than {MAX_URL:,} bytes: ask with POST.")
        try:
            values = opened.reader.from_url(query)
            body = opened.snapshot.find(opened.reader.lookup_hash(values), most)
        except UsageError as exc:
            raise Problem("bad-query", str(exc)) from exc
        except DamagedFile as exc:  # it is said by who checks the version then, once
            raise Problem("damaged", DAMAGED, SOON) from exc
        if body is None:
            return self._miss(opened, values, header)
        reply = _found(opened, body, header("if-none-match"))
        self._counters[self._hits] += 1
        return reply

    def _miss(self, opened: OpenVersion, values: tuple[Any, ...], header: Header) -> Reply:
        """What the version's student says, if it has one that is sure enough. What it answers is recorded, too."""
        self._counters[self._misses] += 1
        if opened.miss_counter is not None:
            opened.miss_counter.add(values)
        if opened.student is None:
            return opened.miss_reply
        body = opened.student(values[0])
        if body is None:
            self._counters[self._abstentions] += 1
            return opened.miss_reply
        self._counters[self._answers] += 1
        return _found(opened, body, header("if-none-match"))

    def observe(self, status: int, seconds: float) -> None:
        """Counts an answer, and the time that it took."""
        series = self._series.get(status) or self._metrics.series[self._job.name, "lookup", str(status)]
        series.observe(seconds)


def _found(opened: OpenVersion, body: bytes, condition: str | None) -> Reply:
    """Raises Problem. condition: of the client's copy."""
    if len(body) > MAX_ENTRY:
        raise Problem("too-large", TOO_LARGE)
    etag = etag_of(body)
    if condition is not None and names_etag(condition, etag):
        return 304, [*opened.headers[1:], ("etag", etag)], b""
    return 200, [*opened.headers, ("etag", etag)], body


def lookup_path(job: str) -> str:
    """Where a job answers look-ups."""
    return f"/v1/jobs/{job}/lookup"


def etag_of(body: bytes) -> str:
    """The strong ETag of a body."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def names_etag(condition: str, etag: str) -> bool:
    """Whether an If-None-Match names this ETag; it compares weakly (RFC 9110, 13.1.2)."""
    named = [part.strip().removeprefix("W/") for part in condition.split(",")]
    return etag in named or named == ["*"]
