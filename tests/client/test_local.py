"""Lookup, by its one interface: over HTTP from a real service, and in this process from the data folder."""

from __future__ import annotations

import enum
import errno
import gc
import json
import logging
import math
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchinfer import Lookup
from batchinfer.client.local import _hit
from batchinfer.core.home import JobData
from batchinfer.errors import NotFound, StoreError, UsageError
from batchinfer.review import predictions
from batchinfer.versions import folders, follow, pointers
from batchinfer.versions.layout import LOOKUP, MANIFEST
from batchinfer.versions.snapshot import Snapshot
from tests.client.conftest import outcome
from tests.factories import World
from tests.serving import PATIENCE, eventually, job, say
from tests.tiny import ROOT

NOON = datetime(2026, 1, 31, 12, 0, 0, 250, tzinfo=UTC)
NAMES = ("text", "count", "ratio", "fresh", "day", "at")
VALUES: list[tuple[Any, ...]] = [
    ("ä & b", 1, 0.5, True, date(2026, 1, 31), NOON),
    ("c+d/é=?#%", -7, 0.0, False, date(1999, 12, 31), NOON + timedelta(days=1)),
    ("  x ", 0, 1e300, True, date(2026, 1, 31), NOON),
    ("\N{SNOWMAN}", 2**63 - 1, -0.1, False, date(1970, 1, 1), NOON),
]
TYPED = [dict(zip(NAMES, row, strict=True)) for row in VALUES]
Opener = Callable[..., Lookup]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the jobs `items` and `typed`, which no test changes, and `bare`, which has no version."""
    folder = tmp_path_factory.mktemp("shared") / "home"
    ids = [f"i{number}" for number in range(3000)]
    items = job(folder, "items", {"id": ids})
    items.take_in({"id": ids, "prediction": [f"about {key}" for key in ids]})
    items.publish()
    columns = {name: [row[name] for row in TYPED] for name in NAMES}
    typed = job(folder, "typed", columns, input={"path": "queries.parquet", "key": list(NAMES)})
    typed.take_in(columns | {"prediction": [f"row {number}" for number in range(len(TYPED))]})
    typed.publish()
    bare = job(folder, "bare", {"id": ["a"]})
    bare.data.bind(bare.job.path)
    return folder


@pytest.fixture
def items(source: str | Path) -> Iterator[Lookup]:
    with Lookup(source, "items") as lookup:
        yield lookup


@pytest.fixture
def typed(source: str | Path) -> Iterator[Lookup]:
    with Lookup(source, "typed") as lookup:
        yield lookup


def test_a_hit_is_the_contracts_body(items: Lookup) -> None:
    """A hit has the fields of the HTTP contract, and the columns can be named in two ways."""
    hit = items.get(id="i7")
    assert hit is not None
    assert (hit["job"], hit["query"], hit["prediction"]) == ("items", {"id": "i7"}, "about i7")
    assert (hit["source"], hit["scores"], hit["score"], hit["model"]) == ("import", None, None, None)
    assert hit["generated_at"].endswith("Z")
    assert "found" not in hit
    assert items.get({"id": "i7"}) == hit == items.get({}, id="i7")
    assert items.version == 1


def test_a_miss_is_none(items: Lookup) -> None:
    """What has no prediction is None, not an error."""
    assert items.get(id="nobody") is None
    assert items.get_many([{"id": "nobody"}]) == [None]


def test_many_come_in_their_order(items: Lookup) -> None:
    """More queries than a batch holds, from a generator, hits and misses mixed: each answer stands where its query does."""
    wanted = [f"i{number}" for number in range(2600, 0, -1)]
    wanted[::3] = ["missing"] * len(wanted[::3])
    found = items.get_many({"id": key} for key in wanted)
    assert [isinstance(hit, dict) and hit["query"]["id"] for hit in found] == [
        key != "missing" and key for key in wanted
    ]
    assert found[1] == items.get(id=wanted[1])
    assert items.get_many([]) == []


@pytest.mark.parametrize("number", range(len(TYPED)))
def test_values_of_every_kind_are_found(typed: Lookup, number: int) -> None:
    """Text with all sorts of signs, numbers, truth values, dates and times, one by one and in batches."""
    hit = typed.get(TYPED[number])
    assert hit is not None
    assert hit["prediction"] == f"row {number}"
    assert typed.get_many([TYPED[number]]) == [hit]


def test_times_may_be_text_or_of_another_zone(typed: Lookup) -> None:
    """The same moment is found as ISO text, in another zone, and without one, which means UTC."""
    zone = timezone(timedelta(hours=5, minutes=30))
    for moment in (NOON.isoformat(), NOON.astimezone(zone), NOON.replace(tzinfo=None)):
        query = TYPED[0] | {"at": moment, "day": "2026-01-31"}
        assert typed.get(query) == typed.get(TYPED[0]) == typed.get_many([query])[0]


def test_enums_of_text_are_text(items: Lookup) -> None:
    """A member of an enum of strings asks with its value."""

    class Item(str, enum.Enum):  # noqa: UP042 - the older kind is the one whose str() is another text
        SEVENTH = "i7"

    assert items.get(id=Item.SEVENTH) == items.get(id="i7") == items.get_many([{"id": Item.SEVENTH}])[0] is not None


def test_infinity_can_be_asked_for(typed: Lookup) -> None:
    """JSON has no infinity; a batch asks for it all the same."""
    for value in (math.inf, -math.inf):
        assert typed.get(TYPED[0] | {"ratio": value}) is None
        assert typed.get_many([TYPED[0] | {"ratio": value}, TYPED[1]])[1] is not None


BAD: list[tuple[Any, str]] = [
    ({}, "The lookup key of typed is text, count, ratio, fresh, day, at: text, count, ratio, fresh, day, at are missing."),
    (TYPED[0] | {"odd": 1}, "The lookup key of typed is text, count, ratio, fresh, day, at: odd is not part of it."),
    (TYPED[0] | {"count": "7"}, "count: expected an integer, got '7'."),
    (TYPED[0] | {"count": True}, "count: expected an integer, got true."),
    (TYPED[0] | {"count": 2**70}, "count is an integer beyond 64 bits."),
    (TYPED[0] | {"text": date(2026, 1, 31)}, "text: expected a string, got datetime.date(2026, 1, 31)."),
    (TYPED[0] | {"text": None}, "text: expected a string, got null."),
    (TYPED[0] | {"text": "\ud800"}, "text holds half of a surrogate pair, which is not text."),
    (TYPED[0] | {"ratio": math.nan}, "ratio: expected a number, got nan."),
    (
        TYPED[0] | {"day": NOON},
        "day: expected a date, got datetime.datetime(2026, 1, 31, 12, 0, 0, 250, tzinfo=dateti….",
    ),
    (TYPED[0] | {"at": "noon"}, "at=noon is not a valid timestamp."),
]  # fmt: skip


@pytest.mark.parametrize(("query", "sentence"), BAD)
def test_a_bad_query_is_refused_with_one_sentence(typed: Lookup, query: Any, sentence: str) -> None:
    """Both ways refuse the same queries with the same words; among many it has its error in its place."""
    with pytest.raises(UsageError) as refusal:
        typed.get(query)
    assert str(refusal.value) == sentence
    first, refused, last = typed.get_many([TYPED[0], query, TYPED[1]])
    assert (first, last) == (typed.get(TYPED[0]), typed.get(TYPED[1]))
    assert (type(refused), str(refused)) == (UsageError, sentence)


def test_a_query_is_a_mapping(items: Lookup) -> None:
    """Anything else is refused, also a single query where many are wanted."""
    with pytest.raises(UsageError, match=r"^A query is a mapping of columns to values, not 'i7'\.$"):
        items.get("i7")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^Queries are a list of mappings, not {'id': 'i7'}\.$"):
        items.get_many({"id": "i7"})  # type: ignore[dict-item]


def test_unknown_jobs_and_jobs_without_a_version_are_told_from_misses(source: str | Path) -> None:
    """They raise NotFound: a folder at once, a service with the first query."""
    with pytest.raises(NotFound, match=r"^There is no (such job|job nosuch in the data folder)"):
        Lookup(source, "nosuch").get(id="a")
    with pytest.raises(NotFound, match=r"^The job bare has no published version"):
        Lookup(source, "bare", timeout=0.1).get(id="a")


@pytest.mark.parametrize("name", ["../items", "", "a/b", "items?x", "Ä", "x" * 65])
def test_a_jobs_name_is_checked_before_anything_is_opened(source: str | Path, name: str) -> None:
    """Nothing that could lead elsewhere in a path or a URL."""
    with pytest.raises(UsageError, match=r"is not a job's name"):
        Lookup(source, name)


def test_a_closed_lookup_says_so(source: str | Path) -> None:
    """close() can be called twice; a query after it is refused."""
    lookup = Lookup(source, "items")
    assert lookup.get(id="i1") is not None
    lookup.close()
    lookup.close()
    for ask in (lambda: lookup.get(id="i1"), lambda: lookup.get_many([]), lambda: lookup.version):
        with pytest.raises(UsageError, match=r"^This Lookup is closed\.$"):
            ask()


def test_many_lookups_can_be_open(source: str | Path) -> None:
    """Two of one job and one of another do not disturb each other, nor does closing one."""
    with Lookup(source, "items") as first, Lookup(source, "typed") as other:
        with Lookup(source, "items") as second:
            assert first.get(id="i1") == second.get(id="i1") is not None
        assert first.get(id="i2") is not None
        assert other.get(TYPED[0]) is not None


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.dates(), st.datetimes(), st.binary(max_size=3),
    st.datetimes(timezones=st.timezones()), st.lists(st.integers(), max_size=1), st.sampled_from(["1", "true", "2026-01-31", "nan"]),
)  # fmt: skip
FITTING = {
    name: st.one_of(st.sampled_from([row[name] for row in TYPED]), near, ANYTHING)
    for name, near in zip(
        NAMES, (st.text(max_size=5), st.integers(), st.floats(), st.booleans(), st.dates(), st.datetimes()), strict=True
    )
}
QUERIES = st.one_of(
    st.sampled_from(TYPED),
    st.builds(lambda row, changed: row | changed, st.sampled_from(TYPED), st.fixed_dictionaries({}, optional=FITTING)),
    st.dictionaries(st.sampled_from([*NAMES, "odd", ""]), ANYTHING, max_size=7),
)


@pytest.fixture(scope="module")
def both(root: Path, address: str) -> Iterator[tuple[Lookup, Lookup]]:
    with Lookup(root, "typed") as near, Lookup(address, "typed") as far:
        yield near, far


@settings(max_examples=150)
@given(queries=st.lists(QUERIES, min_size=1, max_size=3))
@pytest.mark.long
def test_both_ways_give_the_same(both: tuple[Lookup, Lookup], queries: list[dict[str, Any]]) -> None:
    """Whatever is asked: the same prediction, the same miss, or the same error with the same words."""
    near, far = both
    for query in queries:
        assert outcome(lambda query=query: near.get(query)) == outcome(lambda query=query: far.get(query))  # type: ignore[misc]
    assert outcome(lambda: near.get_many(queries)) == outcome(lambda: far.get_many(queries))


# Following what is published.


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A job with one version, for tests that publish more."""
    made = job(tmp_path / "home", "shop", {"id": ["a", "b"]})
    say(made, "one", id=["a", "b"])
    return made


@pytest.mark.long
def test_a_publish_is_followed_and_the_key_may_change(live: str | Path, world: World) -> None:
    """A new version answers within a moment, also one that is looked up by other columns."""
    with Lookup(live, "shop") as lookup:
        before = lookup.get(id="a")
        assert before is not None
        assert (before["prediction"], lookup.version) == ("one", 1)
        say(world, "two", id=["a", "c"])
        eventually(lambda: lookup.get(id="c"))
        assert lookup.version == 2
        after = lookup.get(id="a")
        assert after is not None
        assert after["prediction"] == "two"
        for number in (1, 2):  # they have no size
            predictions.undo_import(world.job, world.data, number)
        other = world.changed(input={"path": "queries.parquet", "key": ["id", "size"]})
        say(other, "three", id=["a"], size=[7])
        eventually(lambda: not isinstance(outcome(lambda: lookup.get(id="a", size=7)), tuple))
        hit = lookup.get(id="a", size=7)
        assert hit is not None
        assert (hit["prediction"], lookup.version) == ("three", 3)
        with pytest.raises(UsageError, match=r"^The lookup key of shop is id, size: size is missing\.$"):
            lookup.get(id="a")


@pytest.mark.long
def test_threads_share_one_while_versions_change(live: str | Path, world: World) -> None:
    """Every answer is whole and from one version, and none goes missing."""
    stop = threading.Event()

    def ask(lookup: Lookup) -> int:
        rounds = 0
        while not stop.is_set():
            hit = lookup.get(id="a")
            assert hit is not None
            assert hit["prediction"] in ("one", "two", "three", "four")
            first, second = lookup.get_many([{"id": "a"}, {"id": "b"}])
            assert isinstance(first, dict)
            assert isinstance(second, dict)
            assert first["prediction"] == second["prediction"]
            rounds += 1
            time.sleep(0.001)  # the publisher, a thread of this process too, wants its turn
        return rounds

    with Lookup(live, "shop", retries=5, timeout=10) as lookup, ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, lookup) for _ in range(4)]
        try:
            for number, word in enumerate(["two", "three", "four"], 2):
                say(world, word, id=["a", "b"])
                eventually(lambda number=number: lookup.version == number)  # type: ignore[misc]
        finally:
            stop.set()
        assert all(future.result(PATIENCE) > 0 for future in asking)


def test_a_version_that_is_damaged_leaves_the_old_one(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log says why, and look-ups go on; the next good version is taken."""
    monkeypatch.setattr(follow, "RETRY_SECONDS", 0.1)
    with Lookup(world.data.root, "shop") as lookup, caplog.at_level(logging.WARNING, "batchinfer.client"):
        pointers.make_current(world.data, 1)
        pointer = world.data.folder / pointers.CURRENT
        pointer.write_bytes(b"not JSON")
        eventually(lambda: caplog.records)
        assert "is damaged" in caplog.text
        assert lookup.get(id="a") is not None
        pointers.make_current(world.data, 1)
        say(world, "two", id=["a"])
        eventually(lambda: lookup.version == 2)


def test_a_folder_that_vanishes_takes_nothing_away(world: World, tmp_path: Path) -> None:
    """Look-ups go on while it is away, and new versions are followed when it is back."""
    with Lookup(world.data.root, "shop") as lookup:
        world.data.root.rename(tmp_path / "away")
        time.sleep(1.2)
        assert lookup.get(id="a") is not None
        (tmp_path / "away").rename(world.data.root)
        say(world, "two", id=["a"])
        eventually(lambda: lookup.version == 2)


def test_a_folder_that_cannot_be_used_is_told_at_once(world: World, tmp_path: Path) -> None:
    """No data folder, and a job of which nothing is whole, are two different things."""
    with pytest.raises(NotFound, match=r"^There is no data folder .*nowhere: "):
        Lookup(tmp_path / "nowhere", "shop")
    file = folders.folder_of(world.data, 1) / LOOKUP
    file.write_bytes(file.read_bytes()[:-4096])
    with pytest.raises(StoreError, match=r"^Nothing of the job shop can be served: .* is truncated or corrupt"):
        Lookup(world.data.root, "shop")


def test_a_folder_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its path and the system's reason."""

    def refuse(data: JobData) -> list[int]:
        raise PermissionError(errno.EACCES, "Permission denied", str(data.versions))

    monkeypatch.setattr(folders, "numbers", refuse)
    with pytest.raises(StoreError, match=r": /.*/shop/versions cannot be read: Permission denied\.$"):
        Lookup(tmp_path, "shop")


def followers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "batchinfer-shop"]


def locked(world: World) -> bool:
    """Whether this process has version 1 open: clean-up would see its lock on the manifest."""
    wanted = str(folders.folder_of(world.data, 1) / MANIFEST)
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]  # noqa: PTH208
    return any(os.path.exists(link) and os.readlink(link) == wanted for link in links)  # noqa: PTH110, PTH115


def test_a_lookup_lets_everything_go(world: World) -> None:
    """Its thread ends and its version is let go, when it is closed and when nobody has it any more."""
    lookup: Lookup | None = Lookup(world.data.root, "shop")
    assert lookup is not None
    assert len(followers()) == 1
    assert locked(world)
    lookup.close()
    eventually(lambda: not followers())
    assert not locked(world)
    lookup = Lookup(world.data.root, "shop")
    assert locked(world)
    lookup = None
    gc.collect()
    eventually(lambda: not followers())
    eventually(lambda: not locked(world))


FORK = """
    import os, sys, time
    from batchinfer import Lookup

    def version_becomes(lookup, number):
        end = time.monotonic() + 20
        while lookup.version != number and time.monotonic() < end:
            lookup.get(id="a")
            time.sleep(0.02)
        return lookup.version == number

    lookup, second = Lookup(sys.argv[1], "shop", retries=5), Lookup(sys.argv[1], "shop")
    closed = Lookup(sys.argv[1], "shop")
    closed.close()
    assert lookup.get(id="a")["prediction"] == "one"
    assert second.get(id="a")["prediction"] == "one"
    children = []
    for key in "abab":
        child = os.fork()
        if child == 0:
            fine = all(lookup.get(id=key)["query"]["id"] == key for _ in range(100))
            with Lookup(sys.argv[1], "shop") as third:
                fine = fine and third.get(id="b") is not None
            os.write(1, b"asked\\n")
            fine = fine and version_becomes(lookup, 2) and version_becomes(second, 2)
            fine = fine and lookup.get(id="a")["prediction"] == "two"
            lookup.close()
            os._exit(0 if fine else 1)
        children.append(child)
    fine = all(lookup.get(id="b")["query"]["id"] == "b" for _ in range(100))
    os.write(1, b"asked\\n")
    codes = [os.waitpid(child, 0)[1] for child in children]
    sys.exit(0 if fine and version_becomes(lookup, 2) and not any(codes) else f"{fine} {codes}")
"""


@pytest.mark.long
def test_a_lookup_works_on_in_the_child_of_a_fork(live: str | Path, world: World) -> None:
    """Parent and children ask at the same time, open another Lookup, and follow a new version."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(FORK), str(live)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline() == "asked\n"
        say(world, "two", id=["a"])
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def in_a_child(script: str, *arguments: str) -> str:
    """What a new Python prints."""
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout


def test_it_needs_little(root: Path) -> None:
    """A folder needs neither pyarrow nor DuckDB nor urllib3, and `import batchinfer` alone none of it."""
    script = """
        import sys
        import batchinfer
        assert "batchinfer.client" not in sys.modules and "Lookup" in batchinfer.__all__
        with batchinfer.Lookup(sys.argv[1], "items") as lookup:
            assert lookup.get(id="i1") is not None
        heavy = {"pyarrow", "duckdb", "urllib3", "starlette", "granian", "pydantic", "jinja2", "yaml", "vllm"}
        print(*sorted(heavy & set(sys.modules)))
    """
    assert in_a_child(script, str(root)) == "\n"


def test_without_urllib3_the_extra_is_named() -> None:
    """Only an address needs it."""
    script = """
        import sys
        sys.modules["urllib3"] = None
        from batchinfer import Lookup
        from batchinfer.errors import MissingExtra
        try:
            Lookup("http://127.0.0.1:1", "items")
        except MissingExtra as exc:
            print(exc)
    """
    expected = "urllib3, which a Lookup over HTTP needs, is not installed: pip install 'batchinfer-cache[client]'.\n"
    assert in_a_child(script) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None)),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(), parts, max_size=3),
)


@given(JSON, st.booleans())
def test_a_body_is_read_as_python_reads_it(value: Any, ascii_only: bool) -> None:
    """Numbers of any size, signs of all kinds, half of a surrogate pair, and lists very deep within lists."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    body = text.encode(errors="surrogatepass") if ascii_only else text.encode(errors="replace")
    for written in (body, b"[" * 300 + body + b"]" * 300):
        assert repr(_hit(written)) == repr(json.loads(written))


@pytest.mark.long
def test_the_package_has_no_other_names() -> None:
    """A name that there is not is an AttributeError, as of any module."""
    import batchinfer

    with pytest.raises(AttributeError, match="has no attribute 'lookup'"):
        _ = batchinfer.lookup


@pytest.mark.long
def test_a_version_can_be_opened_while_another_thread_lets_go_of_it(world: World) -> None:
    """LMDB opens a file only once in a process, and takes a moment to close it."""
    place = folders.folder_of(world.data, 1)

    def come_and_go(_: int) -> None:
        for _ in range(250):
            assert Snapshot(place).get({"id": "a"}) is not None

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(come_and_go, range(4)))) == 4
