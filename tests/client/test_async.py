"""AsyncLookup: what Lookup answers, in an event loop that goes on meanwhile; from a real service, and from the folder."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from batchinfer import AsyncLookup, Lookup
from batchinfer.client import async_lookup, local
from batchinfer.errors import BatchinferError, NotFound, StoreError, UsageError
from tests.client.conftest import hits
from tests.client.scripted import HIT, Scripted, problem
from tests.serving import PATIENCE, eventually, job, names_job, say

IDS = [f"i{number}" for number in range(300)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the jobs `items`, `vaccines`, whose terms are matched, and `bare`, which has no version."""
    folder = tmp_path_factory.mktemp("shared") / "home"
    items = job(folder, "items", {"id": IDS})
    items.take_in({"id": IDS, "prediction": [f"about {key}" for key in IDS]})
    items.publish()
    names_job(folder, "vaccines", {("Sputnik V", "de"): ["Sputnik-Impfstoff"], ("Comirnaty", "en"): ["the jab"]})
    bare = job(folder, "bare", {"id": ["a"]})
    bare.data.bind(bare.job.path)
    return folder


def asked(source: str | Path, job: str, ask: Callable[[AsyncLookup], Awaitable[Any]], **options: Any) -> Any:
    """What a program gets that asks so."""

    async def program() -> Any:
        async with AsyncLookup(source, job, **options) as lookup:
            return await ask(lookup)

    return asyncio.run(program())


def test_it_has_the_interface_of_lookup() -> None:
    """The same methods with the same arguments; but `version` is a method, as the service may have to be asked."""
    for name in ("__init__", "get", "get_many", "match", "match_many", "close"):
        blocking, awaited = (inspect.signature(getattr(kind, name)) for kind in (Lookup, AsyncLookup))
        assert blocking == awaited, name
        assert name == "__init__" or inspect.iscoroutinefunction(getattr(AsyncLookup, name))
    with pytest.raises(UsageError, match="is not a job's name"):
        AsyncLookup("/tmp", "No Job")


def test_it_answers_as_lookup_does(source: str | Path) -> None:
    """Hits, misses, many of them, matches, the job and the version."""
    queries = [{"id": key} for key in (*IDS, "missing")]
    with Lookup(source, "items") as lookup:
        expected = [lookup.get(id="i7"), lookup.get({"id": "missing"}), lookup.get_many(queries), lookup.version]

    async def ask(lookup: AsyncLookup) -> list[Any]:
        assert lookup.job == "items"
        return [
            await lookup.get(id="i7"), await lookup.get({"id": "missing"}), await lookup.get_many(iter(queries)),
            await lookup.version(),
        ]  # fmt: skip

    assert asked(source, "items", ask) == expected
    assert expected[0] is not None


def test_it_matches_as_lookup_does(source: str | Path) -> None:
    """One text and many, by language, and in UTF-16 units."""
    texts = ["Der Sputnik-Impfstoff!", "🙂 the jab", "nothing"]
    with Lookup(source, "vaccines") as lookup:
        expected: list[Any] = [
            lookup.match(texts[0]), lookup.match_many(texts, utf16=True), lookup.match(texts[0], languages=["en"]),
        ]  # fmt: skip

    async def ask(lookup: AsyncLookup) -> list[Any]:
        return [
            await lookup.match(texts[0]), await lookup.match_many(texts, utf16=True),
            await lookup.match(texts[0], languages=["en"]),
        ]  # fmt: skip

    assert asked(source, "vaccines", ask) == expected
    assert expected[0]["matches"]


WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a column that is none": (lambda lookup: lookup.get(odd=1), "odd is not part of it"),
    "no mapping": (lambda lookup: lookup.get(["i7"]), "A query is a mapping of columns to values, not"),
    "one query for many": (
        lambda lookup: lookup.get_many({"id": "i7"}),
        "Queries are a list of mappings, not {'id': 'i7'}",
    ),
    "one text for many": (lambda lookup: lookup.match_many("text"), "Texts are a list of strings, not 'text'"),
    "no text": (lambda lookup: lookup.match(7), "A text is a string, not 7"),
    "no language": (lambda lookup: lookup.match("text", languages=["?"]), "is not a BCP 47 tag"),
    "nothing to match": (lambda lookup: lookup.match("text"), "has no match section"),
}


@pytest.mark.parametrize(("ask", "sentence"), WRONG.values(), ids=WRONG)
@pytest.mark.long
def test_errors_are_those_of_lookup(source: str | Path, ask: Callable[[Any], Any], sentence: str) -> None:
    """The same class with the same sentence."""
    with Lookup(source, "items") as lookup, pytest.raises(UsageError, match=sentence) as blocking:
        ask(lookup)
    with pytest.raises(BatchinferError) as awaited:
        asked(source, "items", ask)
    assert (type(awaited.value), str(awaited.value)) == (type(blocking.value), str(blocking.value))


def test_a_job_without_a_version(source: str | Path) -> None:
    """For a folder when it is made, for a service with the first query."""
    with pytest.raises(NotFound, match="has no published version"):
        asked(source, "bare", lambda lookup: lookup.get(id="a"))


def test_a_closed_one_says_so(source: str | Path) -> None:
    """Whatever is asked of it; closing it again is no error."""

    async def program() -> None:
        lookup = AsyncLookup(source, "items")
        await lookup.close()
        await lookup.close()
        for ask in (lookup.get(id="i7"), lookup.get_many([]), lookup.match("x"), lookup.version()):
            with pytest.raises(UsageError, match=r"^This AsyncLookup is closed\.$"):
                await ask

    asyncio.run(program())


def test_looking_up_in_a_folder_needs_no_thread(root: Path) -> None:
    """It takes microseconds: the event loop does it itself. A list that takes longer goes to a thread."""

    async def ask(lookup: AsyncLookup) -> None:
        before = set(threading.enumerate())
        assert await lookup.get(id="i7") is not None
        assert len(await lookup.get_many([{"id": "i7"}] * local.AT_ONCE)) == local.AT_ONCE
        assert set(threading.enumerate()) == before
        await lookup.get_many([{"id": "i7"}] * (local.AT_ONCE + 1))
        assert len(set(threading.enumerate()) - before) == 1

    asked(root, "items", ask)


def test_a_matcher_is_loaded_beside_the_event_loop(root: Path) -> None:
    """The first match needs a thread; from then on short texts are matched at once, and long ones not."""

    async def ask(lookup: AsyncLookup) -> None:
        backend = lookup._backend
        assert backend is not None
        assert not backend.matches_at_once(["the jab"])
        assert (await lookup.match("the jab"))["matches"]
        assert backend.matches_at_once(["the jab"])
        assert not backend.matches_at_once(["the jab"] * local.AT_ONCE_CHARACTERS)

    asked(root, "vaccines", ask)


def test_a_new_version_is_opened_meanwhile(tmp_path: Path) -> None:
    """As a Lookup's thread does it, whatever the event loop does."""
    world = job(tmp_path / "home", "shop", {"id": ["a"]})
    say(world, "one", id=["a"])

    async def ask(lookup: AsyncLookup) -> None:
        say(world, "two", id=["a"])
        until = time.monotonic() + PATIENCE
        while await lookup.version() != 2:
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
        hit = await lookup.get(id="a")
        assert hit is not None
        assert hit["prediction"] == "two"

    asked(world.data.root, "shop", ask)


def test_the_event_loop_goes_on_while_a_service_is_waited_for(server: Scripted) -> None:
    """A service that is silent holds up nobody else; its time-out is the caller's error."""

    async def ask(lookup: AsyncLookup) -> int:
        await lookup.get(id="a")
        server.first("hang")
        waiting = asyncio.create_task(lookup.get(id="a"))
        turns = 0
        while not waiting.done():
            await asyncio.sleep(0.01)
            turns += 1
        with pytest.raises(StoreError, match=r"cannot be reached: timed out\.$"):
            await waiting
        return turns

    assert asked(server.url, "shop", ask, timeout=0.5, retries=0) > 10


def test_many_at_a_time_keep_to_the_threads(server: Scripted) -> None:
    """However many ask at once, there are no more threads and connections than there may be, and all are answered."""

    async def ask(lookup: AsyncLookup) -> list[Any]:
        return await asyncio.gather(*(lookup.get(id="a") for _ in range(5 * async_lookup.THREADS)))

    assert asked(server.url, "shop", ask, timeout=PATIENCE) == [HIT] * 5 * async_lookup.THREADS
    assert server.connections <= async_lookup.THREADS


def test_a_call_that_is_cancelled(server: Scripted) -> None:
    """It ends at once, others are answered, and no answer slips to who did not ask for it."""

    async def ask(lookup: AsyncLookup) -> None:
        await lookup.get(id="a")
        server.first("hang")
        waiting = asyncio.create_task(lookup.get(id="a"))
        while not server.asked:
            assert not waiting.done()
            await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waiting, 0.01)
        assert len(server.asked) == 1  # its request still hangs: one that had ended would have been sent again
        assert await asyncio.gather(*(lookup.get(id="a") for _ in range(10))) == [HIT] * 10
        server.released.set()

    asked(server.url, "shop", ask, timeout=PATIENCE)


def test_those_who_wait_for_a_thread_can_be_cancelled(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not sent when its caller went is never sent."""
    monkeypatch.setattr(async_lookup, "THREADS", 1)

    async def ask(lookup: AsyncLookup) -> None:
        await lookup.get(id="a")
        server.first(problem(503, "not-published", "wait", **{"Retry-After": "1"}))
        first = asyncio.create_task(lookup.get(id="a"))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(lookup.get(id="b"))
        await asyncio.sleep(0.1)
        second.cancel()
        assert await first == HIT

    asked(server.url, "shop", ask)
    assert not [path for _, path, *_ in server.asked if "id=b" in path]


@pytest.mark.long
def test_closing_waits_for_what_is_under_way(server: Scripted) -> None:
    """Who asked before is answered, and no thread is left."""

    async def program() -> None:
        lookup = AsyncLookup(server.url, "shop")
        await lookup.get(id="a")
        server.first(problem(503, "not-published", "wait", **{"Retry-After": "1"}))
        waiting = asyncio.create_task(lookup.get(id="a"))
        await asyncio.sleep(0.1)
        await lookup.close()
        assert await waiting == HIT

    asyncio.run(program())
    eventually(lambda: not [thread for thread in threading.enumerate() if "shop-lookup" in thread.name])


@pytest.mark.long
def test_it_goes_on_in_the_child_of_a_fork(source: str | Path) -> None:
    """Also if it was used before: the child makes threads and connections of its own."""
    lookup = AsyncLookup(source, "items")

    async def ask() -> bool:
        found = await lookup.get_many([{"id": key} for key in IDS])
        return [hit["prediction"] for hit in hits(found)] == [f"about {key}" for key in IDS]

    assert asyncio.run(ask())
    child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if asyncio.run(asyncio.wait_for(ask(), PATIENCE)) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert asyncio.run(ask())
    asyncio.run(lookup.close())
