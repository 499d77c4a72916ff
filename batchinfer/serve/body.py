"""Bodies of requests and replies: read within limits, compressed where it is worth it."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from typing import Any

from batchinfer.core.http_limits import MAX_BODIES, MAX_BODY, MAX_VALUES
from batchinfer.serve.problems import Problem

MAX_READ = 8 << 20  # bytes of a body that is too large: a client that is cut off while sending reads no answer
BODY_SECONDS = 10.0
AT_ONCE = 0.0  # the time limit of a body that goes
NO_ROOM = "Too many bodies come in at once, and this one began first: send it again in a moment."
AGAIN = (("retry-after", "1"), ("connection", "close"))
WORTH_COMPRESSING = 1024  # bytes
STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


class Bodies:
    """The bodies that one worker reads: what it holds of all that have not come as a whole is bounded.

    Who sends one does so in a moment, unless he keeps it back. So where there is no room, the one that began first goes.
    """

    def __init__(self, room: int = MAX_BODIES) -> None:
        """room: bytes of them."""
        self._room = room
        self._held = dict[asyncio.Timeout, int]()  # by the time limit of each, the first to begin first

    async def read(self, headers: Any, receive: Any) -> bytes:
        """The body of a request, bounded in size and time. Raises Problem."""
        declared = next((value for name, value in headers if name == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > MAX_READ:
            raise _too_large()
        limit = asyncio.timeout(BODY_SECONDS)
        try:
            async with limit:
                return await self._pieces(receive, limit)
        except TimeoutError as exc:
            if limit.when() == AT_ONCE:
                raise Problem("busy", NO_ROOM, AGAIN) from exc
            raise Problem("slow-body", f"The body did not come within {BODY_SECONDS:.0f} s.") from exc
        finally:
            self._room += self._held.pop(limit, 0)

    async def _pieces(self, receive: Any, limit: asyncio.Timeout) -> bytes:
        """The body, as it comes."""
        chunks: list[bytes] = []
        size, more = 0, True
        while more and size <= MAX_READ:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Problem("bad-body", "The body was cut off.")
            piece = message.get("body", b"")
            size += len(piece)
            more = message.get("more_body", False)
            if size > MAX_BODY:
                chunks.clear()
            else:
                chunks.append(piece)
                self._hold(limit, len(piece))
        if size > MAX_BODY:
            raise _too_large()
        return b"".join(chunks)

    def _hold(self, limit: asyncio.Timeout, size: int) -> None:
        """Takes the room of a piece, if need be that of the bodies that began first."""
        self._held[limit] = self._held.get(limit, 0) + size
        self._room -= size
        while self._room < 0 and self._held:
            first = next(iter(self._held))
            self._room += self._held.pop(first)
            if not first.expired():
                first.reschedule(AT_ONCE)


def _too_large() -> Problem:
    return Problem("too-large", f"A body may have {MAX_BODY:,} bytes: send less at a time.", (("connection", "close"),))


def read_json(body: bytes) -> Any:
    """What a body holds. Raises Problem.

    Python reads JSON in one go, in which no other thread works: so what has a value for every few bytes is not read.
    """
    if body.count(b",") >= MAX_VALUES and _values(body) > MAX_VALUES:
        raise Problem("too-large", f"A body may have {MAX_VALUES:,} JSON values: send less at a time.")
    try:
        return json.loads(body.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:  # UnicodeDecodeError is a ValueError
        raise Problem("bad-body", f"The body is not valid JSON: {str(exc)[:200]}.") from exc


def _values(body: bytes) -> int:
    """About how many values JSON has; more than can be used where it also has too many strings to tell."""
    if body.count(b'"') > 4 * MAX_VALUES:
        return MAX_VALUES + 1
    return STRING.sub(b"", body).count(b",") + 1


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def is_to_be_compressed(body: bytes, headers: Any) -> bool:
    """Whether the client accepts gzip, and it is worth it."""
    header = b",".join(value for name, value in headers if name == b"accept-encoding").lower()
    accepted: dict[bytes, bool] = {}
    for part in header.split(b","):
        coding, *parameters = [word.strip() for word in part.split(b";")]
        weights = [word[2:] for word in parameters if word.startswith(b"q=")]
        accepted[coding] = all(weight.strip(b"0.") for weight in weights)  # q=0 and q=0.000 mean: not this one
    return len(body) >= WORTH_COMPRESSING and accepted.get(b"gzip", accepted.get(b"*", False))


def compressed(body: bytes) -> bytes:
    """The body as gzip. A large one takes a while: call it in a thread."""
    return gzip.compress(body, compresslevel=1, mtime=0)
