"""POST /v1/jobs/{job}/lookup: up to 1,000 queries, answered in order from one version."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
from typing import Any

from batchinfer.errors import UsageError
from batchinfer.serve.problems import Problem
from batchinfer.serve.registry import Open

MAX_QUERIES = 1000
MAX_BODY = 1 << 20  # bytes
MAX_REPLY = 16 << 20  # bytes of the predictions in one reply
MOST_TAKEN = 8 << 20  # bytes of a body that is too large; who is cut off while sending gets to read no answer
BODY_SECONDS = 10.0
WORTH_COMPRESSING = 1024  # bytes


async def read_body(headers: Any, receive: Any) -> bytes:
    """The body of a request, bounded in size and time. Raises Problem."""
    declared = next((value for name, value in headers if name == b"content-length"), b"0")
    if declared.isdigit() and int(declared) > MOST_TAKEN:
        raise _too_large()
    chunks: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more and size <= MOST_TAKEN:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Problem("bad-body", "The body broke off.")
                piece = message.get("body", b"")
                size += len(piece)
                if size <= MAX_BODY:
                    chunks.append(piece)
                more = message.get("more_body", False)
    except TimeoutError as exc:
        raise Problem("slow-body", f"The body did not come within {BODY_SECONDS:.0f} s.") from exc
    if size > MAX_BODY:
        raise _too_large()
    return b"".join(chunks)


def _too_large() -> Problem:
    return Problem("too-large", f"A body may have {MAX_BODY:,} bytes: send less at a time.", (("connection", "close"),))


def read_json(body: bytes) -> Any:
    """What a body holds. Raises Problem."""
    try:
        return json.loads(body.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:  # UnicodeDecodeError is a ValueError
        raise Problem("bad-body", f"The body is not valid JSON: {str(exc)[:200]}.") from exc


def read_queries(body: bytes) -> list[Any]:
    """The queries of {"queries": [...]}. Raises Problem."""
    content = read_json(body)
    if not isinstance(content, dict) or content.keys() != {"queries"} or not isinstance(content["queries"], list):
        raise Problem("bad-body", 'The body should be {"queries": [{"COLUMN": VALUE, …}, …]}, and no more.')
    if len(content["queries"]) > MAX_QUERIES:
        raise Problem(
            "too-large", f"A batch may have {MAX_QUERIES:,} queries; this one has {len(content['queries']):,}."
        )
    return content["queries"]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def answer(opened: Open, queries: list[Any]) -> tuple[bytes, list[tuple[Any, ...]]]:
    """The body of the reply, and the values of the queries that were not found. Raises Problem."""
    try:
        rows = opened.reader.from_many(queries)
    except UsageError as exc:
        raise Problem("bad-query", str(exc)) from exc
    bodies = _bodies(opened, rows)
    results = [
        b'{"found":true,' + body[1:] if body is not None else _missed(query)
        for body, query in zip(bodies, queries, strict=True)
    ]
    missed = [values for values, body in zip(rows, bodies, strict=True) if body is None]
    return b'{"version":%d,"results":[%b]}' % (opened.version, b",".join(results)), missed


def _bodies(opened: Open, rows: list[tuple[Any, ...]]) -> list[bytes | None]:
    """What is found, in the order of the queries. Raises Problem for more than a reply may have; one always may come."""
    bodies: list[bytes | None] = []
    size = 0
    for body in opened.snapshot.find_many(opened.reader.key(values) for values in rows):
        size += len(body or b"")
        if size > MAX_REPLY and len(rows) > 1:
            raise Problem(
                "too-large", f"The reply would have more than {MAX_REPLY:,} bytes: send fewer queries at a time."
            )
        bodies.append(body)
    return bodies


def _missed(query: dict[str, Any]) -> bytes:
    """JSON has no infinity; a number that was too large to be told from it is repeated as one."""
    try:
        text = json.dumps(query, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = "{" + ",".join(f"{_plain(name)}:{_plain(value)}" for name, value in query.items()) + "}"
    return b'{"found":false,"query":%b}' % text.encode()


def _plain(value: str | float) -> str:
    endless = isinstance(value, float) and math.isinf(value)
    return f"{'-' * (value < 0)}1e999" if endless else json.dumps(value, ensure_ascii=False)  # type: ignore[operator]


def is_to_be_compressed(body: bytes, headers: Any) -> bool:
    """Whether the client takes gzip, and it is worth it."""
    accepted = b",".join(value for name, value in headers if name == b"accept-encoding").lower()
    wanted: dict[bytes, bool] = {}
    for part in accepted.split(b","):
        coding, *parameters = [word.strip() for word in part.split(b";")]
        weights = [word[2:] for word in parameters if word.startswith(b"q=")]
        wanted[coding] = all(weight.strip(b"0.") for weight in weights)  # q=0 and q=0.000 mean: not this one
    return len(body) >= WORTH_COMPRESSING and wanted.get(b"gzip", wanted.get(b"*", False))


def compressed(body: bytes) -> bytes:
    """The body as gzip. It takes a while for a large one: call it beside the event loop."""
    return gzip.compress(body, compresslevel=1, mtime=0)
