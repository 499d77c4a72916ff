"""Bodies of requests and replies: read within limits, compressed where it is worth it."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

from batchinfer.core.http_limits import MAX_BODY
from batchinfer.serve.problems import Problem

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


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


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
