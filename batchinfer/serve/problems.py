"""Errors of the service: problem details as in RFC 9457, one kind for each cause."""

from __future__ import annotations

import json
from collections.abc import Sequence

MEDIA_TYPE = "application/problem+json"

# slug: (status, title). The type of a problem is urn:batchinfer:<slug>: a name to compare with, not a page to open.
KINDS = {
    "miss": (404, "No prediction"),
    "unknown-job": (404, "No such job"),
    "no-match-section": (404, "The job matches no texts"),
    "not-found": (404, "No such page"),
    "bad-query": (400, "The query does not fit"),
    "bad-body": (400, "The body does not fit"),
    "no-key": (401, "An API key is needed"),
    "forbidden": (403, "The API key is not for this"),
    "method-not-allowed": (405, "Method not allowed"),
    "slow-body": (408, "The body did not come in time"),
    "too-large": (413, "The body is too large"),
    "long-url": (414, "The URL is too long"),
    "broken": (500, "The service failed"),
    "not-installed": (501, "A part of the service is not installed"),
    "busy": (503, "The service has too much to do"),
    "not-published": (503, "No version is open"),
    "damaged": (503, "The version is damaged"),
}

Headers = Sequence[tuple[str, str]]
Reply = tuple[int, list[tuple[str, str]], bytes]
"""Status, headers and body. The server adds the length."""


DAMAGED = "What is stored for this is damaged; the version is checked now: ask again in a moment."
SOON = (("retry-after", "1"),)


class Problem(Exception):
    """Ends a request with an error.

    slug: one of KINDS.
    detail: what is wrong, a sentence.
    headers: beyond the content type.
    """

    def __init__(self, slug: str, detail: str, headers: Headers = ()) -> None:
        super().__init__(detail)
        self.slug, self.detail, self.headers = slug, detail, headers

    @property
    def status(self) -> int:
        return KINDS[self.slug][0]

    @property
    def body(self) -> bytes:
        return problem_body(self.slug, self.detail)

    def answer(self) -> Reply:
        """The reply that tells the client."""
        return reply(self.status, self.body, MEDIA_TYPE, self.headers)


def problem_body(slug: str, detail: str, **more: bool) -> bytes:
    """A problem's JSON. more: members beyond those of every problem."""
    status, title = KINDS[slug]
    content = {"type": f"urn:batchinfer:{slug}", "title": title, "status": status, "detail": detail, **more}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def reply(status: int, body: bytes, media_type: str, headers: Headers = ()) -> Reply:
    """A reply that is not a hit; it is not to be stored, unless the headers say otherwise."""
    stored = () if any(name == "cache-control" for name, _ in headers) else (("cache-control", "no-store"),)
    return status, [("content-type", media_type), *headers, *stored], body
