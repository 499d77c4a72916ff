"""Bodies: how much is held of those that have yet to come, and what one of JSON may hold before it is read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from batchinfer.core.http_limits import MAX_BODY, MAX_VALUES
from batchinfer.serve.body import Bodies, read_json
from batchinfer.serve.problems import Problem


@pytest.mark.parametrize("value", ["1", "[]", "{}", "1.5", '""', "null", '"\\","', '"\\\\"'])
def test_more_values_than_a_request_can_need_are_not_read(value: str) -> None:
    """Reading half a million of them would keep all look-ups waiting; texts with commas are no such values."""
    few = f"[{','.join([value] * MAX_VALUES)}]"
    assert read_json(few.encode()) == [json.loads(value)] * MAX_VALUES
    with pytest.raises(Problem, match="64,000 JSON values") as caught:
        read_json(f"[{value},{few[1:]}".encode())
    assert caught.value.slug == "too-large"


@pytest.mark.parametrize("text", [",", ",,,a", '\\","', "\n,", "ü,"])
def test_commas_in_texts_are_no_values(text: str) -> None:
    """Whatever a text has, it is one value."""
    long = text * (MAX_BODY // 3 // len(json.dumps(text)))
    body = json.dumps({"texts": [long, "b"]}, ensure_ascii=False).encode()
    assert read_json(body) == {"texts": [long, "b"]}


@pytest.mark.parametrize("body", [b'["' + b'",' * 200_000, b'["' + b"\\," * 400_000, b'"' * 900_000 + b"," * 90_000])
def test_what_is_no_json_is_refused_as_ever(body: bytes) -> None:
    """A string that does not end, and quotes without end."""
    with pytest.raises(Problem):
        read_json(body)


def coming(*pieces: bytes, held_back: asyncio.Event | None = None) -> Callable[[], Awaitable[dict[str, Any]]]:
    """A body that comes in pieces, the last of them not before it is let go."""
    left = list(pieces)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        if len(left) == 1 and held_back is not None:
            await held_back.wait()
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    return receive


def test_bodies_that_are_kept_back_make_room_for_others() -> None:
    """The first to begin goes first, as soon as what is held is too much; what has come, or is gone, takes no room."""

    async def told() -> list[Any]:
        bodies, never, soon = Bodies(room=100), asyncio.Event(), asyncio.Event()
        kept_back = [
            asyncio.create_task(bodies.read([], coming(b"x" * 30, b"x", held_back=held)))
            for held in (never, soon, soon)
        ]
        await asyncio.sleep(0.01)
        whole = [await bodies.read([], coming(*[b"y" * 10] * 4)) for _ in range(20)]
        assert whole == [b"y" * 40] * 20
        soon.set()
        return await asyncio.gather(*kept_back, return_exceptions=True)

    first, second, third = asyncio.run(asyncio.wait_for(told(), 5))
    assert (first.slug, first.headers) == ("busy", (("retry-after", "1"), ("connection", "close")))
    assert second == third == b"x" * 31


def test_one_body_that_is_more_than_there_is_room_for() -> None:
    """It goes itself, and the next has all the room."""
    bodies = Bodies(room=100)
    with pytest.raises(Problem, match="send it again"):
        asyncio.run(bodies.read([], coming(*[b"x" * 30] * 5)))
    assert asyncio.run(bodies.read([], coming(b"x" * 50, b"x" * 50))) == b"x" * 100
