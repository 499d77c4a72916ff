"""Lookup.match, by its one interface: over HTTP from a real service, and in this process from the data folder."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchinfer import Lookup
from batchinfer.errors import StoreError, UsageError
from batchinfer.match.matcher import Matcher
from batchinfer.match.version import MATCHER
from batchinfer.serve import match
from tests.client.conftest import outcome
from tests.damage import cut, next_version
from tests.factories import World
from tests.serving import PATIENCE, eventually, job, name_things, names_job, say
from tests.tiny import ROOT

NAMED = {
    ("Sputnik V", "de"): ["Sputnik-Impfstoff"],
    ("Sputnik V", "en"): ["the jab"],
    ("Comirnaty", "en"): ["the jab"],
    ("疫苗", "zh"): ["科兴疫苗"],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the jobs `vaccines`, whose terms are matched, and `plain`, which has none."""
    folder = tmp_path_factory.mktemp("shared") / "home"
    names_job(folder, "vaccines", NAMED)
    say(job(folder, "plain", {"id": ["a"]}), "x", id=["a"])
    return folder


@pytest.fixture
def vaccines(source: str | Path) -> Iterator[Lookup]:
    with Lookup(source, "vaccines") as lookup:
        yield lookup


def test_one_text(vaccines: Lookup) -> None:
    """Matches and version, as the contract has them."""
    expected = {
        "concept": "Sputnik V", "language": "de", "languages": ["de"], "term": "Sputnik-Impfstoff", "start": 4, "end": 21,
        "text": "Sputnik-Impfstoff", "score": None, "source": "import",
    }  # fmt: skip
    assert vaccines.match("Der Sputnik-Impfstoff!") == {"matches": [expected], "version": 1}
    assert vaccines.match("nothing") == vaccines.match("") == {"matches": [], "version": 1}
    assert vaccines.version == 1


def test_many_texts_keep_their_order(vaccines: Lookup) -> None:
    """More texts than a batch holds, from a generator."""
    found = vaccines.match_many(f"{number} the jab" if number % 3 else "nothing" for number in range(2500))
    assert [len(one["matches"]) for one in found] == [2 if number % 3 else 0 for number in range(2500)]
    assert found[2498]["matches"][0]["start"] == 5
    assert {one["version"] for one in found} == {1}
    assert vaccines.match_many([]) == []


def test_languages_and_offsets(vaccines: Lookup) -> None:
    """They are those of the service."""
    text = "\N{SYRINGE} the jab, Sputnik-Impfstoff, 科兴疫苗"

    def spans(**more: Any) -> list[tuple[str, int]]:
        [result] = vaccines.match_many([text], **more)
        assert result == vaccines.match(text, **more)
        return sorted((found["language"], found["start"]) for found in result["matches"])

    assert spans() == [("de", 11), ("en", 2), ("en", 2), ("zh", 30)]
    assert spans(languages=["de", "zh"]) == spans(languages={"zh", "de"}) == [("de", 11), ("zh", 30)]
    assert spans(languages=("de",), utf16=True) == [("de", 12)]


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda lookup: lookup.match(7), "A text is a string, not 7."),
        (lambda lookup: lookup.match(b"the jab"), "A text is a string, not b'the jab'."),
        (lambda lookup: lookup.match_many(["a", None]), "A text is a string, not None."),
        (lambda lookup: lookup.match_many("the jab"), "Texts are a list of strings, not 'the jab'."),
        (lambda lookup: lookup.match("a", languages="de"), 'Languages are a list of BCP 47 tags, such as ["de"], not \'de\'.'),
        (lambda lookup: lookup.match("a", languages=["zh_Hans"]), "'zh_Hans' is not a BCP 47 tag, such as de or pt-BR."),
        (lambda lookup: lookup.match("a", languages=["%b"]), "'%b' is not a BCP 47 tag, such as de or pt-BR."),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(vaccines: Lookup, ask: Callable[[Lookup], Any], sentence: str) -> None:
    """Is refused with the same words, either way."""
    with pytest.raises(UsageError) as refusal:
        ask(vaccines)
    assert str(refusal.value) == sentence


def test_a_job_without_a_match_section(source: str | Path) -> None:
    """Is a UsageError, also without any text; look-ups are as ever."""
    with Lookup(source, "plain") as plain:
        for texts in (["a"], []):
            with pytest.raises(UsageError, match=r"^The job plain has no match section"):
                plain.match_many(texts)
        assert plain.get(id="a") is not None


def test_a_closed_lookup_says_so(vaccines: Lookup) -> None:
    """As for look-ups."""
    vaccines.close()
    with pytest.raises(UsageError, match=r"^This Lookup is closed\.$"):
        vaccines.match("a")


@pytest.fixture(scope="module")
def both(root: Path, address: str) -> Iterator[tuple[Lookup, Lookup]]:
    with Lookup(root, "vaccines") as near, Lookup(address, "vaccines") as far:
        yield near, far


TEXTS = st.lists(
    st.one_of(
        st.text(max_size=5),
        st.sampled_from(["the jab", "THE\N{NO-BREAK SPACE}JAB", "科兴疫苗", "Sputnik-Impfstoff"]),
        st.characters(categories=["Cs", "Mn", "Cn", "Cf"]),
    )
).map(" ".join)


@settings(max_examples=150)
@given(
    texts=st.lists(TEXTS, min_size=1, max_size=3),
    utf16=st.booleans(),
    languages=st.lists(st.sampled_from(["de", "en", "zh", "fr"])),
)
def test_both_ways_give_the_same(
    both: tuple[Lookup, Lookup], texts: list[str], utf16: bool, languages: list[str]
) -> None:
    """Whatever is asked, halves of surrogate pairs too: the same matches, or the same error with the same words."""
    near, far = [
        outcome(lambda lookup=lookup: lookup.match_many(texts, languages=languages, utf16=utf16))  # type: ignore[misc]
        for lookup in both
    ]
    assert near == far
    if not utf16:
        for text, result in zip(texts, near, strict=True):
            assert all(text[found["start"] : found["end"]] == found["text"] for found in result["matches"])


def test_long_texts_over_http(address: str) -> None:
    """Batches keep within the service's limit of bytes, whatever the texts are made of; one that no batch holds is refused."""
    with Lookup(address, "vaccines", timeout=20) as lookup:
        texts = ["\N{SYRINGE}" * 50_000 + " the jab", "\ud800" * 60_000 + " the jab"] * 4
        spans = [one["matches"][0]["start"] for one in lookup.match_many(texts, languages=["en"])]
        assert spans == [50_001, 60_001] * 4
        with pytest.raises(UsageError, match=r"^A text has 1,048,577 bytes; the service takes 1,048,\d\d\d\.$"):
            lookup.match("x" * ((1 << 20) - 1))


@pytest.mark.long
def test_a_reply_that_is_too_large_is_asked_for_in_halves(address: str, root: Path) -> None:
    """The matches come whole and in order, as from the folder."""
    texts = [f"{number} " + "the jab " * 200 for number in range(500)]
    assert sum(map(len, texts)) > match.THREAD_FROM
    with Lookup(address, "vaccines", timeout=30) as far, Lookup(root, "vaccines") as near:
        assert far.match_many(texts) == near.match_many(texts)


# Following what is published.


def of_version(version: int) -> dict[tuple[str, str], list[str]]:
    """What a version names: a text of all words tells which one matched it."""
    return {("same", "en"): ["word zero"], ("changing", "en"): [f"word number {version}"]}


TEXT = "word zero " + " ".join(f"word number {version}." for version in range(1, 9))


def terms(result: dict[str, Any]) -> list[str]:
    return [found["term"] for found in result["matches"]]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return names_job(tmp_path / "home", "vaccines", of_version(1))


@pytest.mark.long
def test_a_swap_takes_the_new_matcher(live: str | Path, world: World) -> None:
    """Threads that match all the while see each version whole, with its own terms."""
    stop = threading.Event()

    def ask(lookup: Lookup, seen: set[int]) -> None:
        while not stop.is_set():
            for result in lookup.match_many([TEXT, TEXT]):
                assert terms(result) == ["word zero", f"word number {result['version']}"]
                seen.add(result["version"])
            stop.wait(0.001)  # the publisher, a thread of this process too, wants its turn

    seen: list[set[int]] = [set(), set(), set()]
    with Lookup(live, "vaccines", retries=5, timeout=10) as lookup, ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask, lookup, mine) for mine in seen]
        try:
            for version in (2, 3):
                name_things(world, of_version(version))
                eventually(lambda version=version: all(version in mine for mine in seen))  # type: ignore[misc]
        finally:
            stop.set()
        for future in asking:
            future.result(PATIENCE)


def matchers() -> int:
    """How many are in memory."""
    # isinstance would wake up other libraries' objects
    return sum(type(thing) is Matcher for thing in gc.get_objects())


@pytest.mark.long
def test_who_does_not_match_does_not_pay_for_it(world: World) -> None:
    """The matcher is loaded by the first match; from then on a new version's is before it is served, and the old one goes."""
    before = matchers()
    with Lookup(world.data.root, "vaccines") as lookup:
        assert lookup.get(thing="same", language="en") is not None
        name_things(world, of_version(2))
        eventually(lambda: lookup.version == 2)
        assert matchers() == before
        assert terms(lookup.match(TEXT)) == ["word zero", "word number 2"]
        assert matchers() == before + 1
        name_things(world, of_version(3))
        eventually(lambda: lookup.version == 3)
        snapshot = lookup._backend._follower.followed.snapshot  # type: ignore[union-attr]
        assert any(isinstance(value, Matcher) for value in vars(snapshot).values())
        eventually(lambda: matchers() == before + 1)


def test_a_damaged_matcher_leaves_the_old_version(world: World) -> None:
    """Look-ups and matches go on from it."""
    with Lookup(world.data.root, "vaccines") as lookup:
        assert lookup.match(TEXT)["version"] == 1
        next_version(world.data, like=1, number=2, damage=cut(MATCHER))
        follower = lookup._backend._follower  # type: ignore[union-attr]
        eventually(lambda: follower.failed_loads)
        assert MATCHER in (follower.followed.problem or "")
        assert lookup.match(TEXT)["version"] == lookup.version == 1


@pytest.mark.long
def test_a_match_section_may_come_and_go(world: World) -> None:
    """A version without it refuses; the next one with it matches."""
    with Lookup(world.data.root, "vaccines") as lookup:
        assert lookup.match(TEXT)["version"] == 1
        without = world.changed(match=None)
        without.publish()
        eventually(lambda: lookup.version == 2)
        with pytest.raises(UsageError, match="has no match section"):
            lookup.match(TEXT)
        assert lookup.get(thing="same", language="en") is not None
        name_things(without.changed(match={"terms": ["prediction.names"], "concept": "thing"}), of_version(3))
        eventually(lambda: lookup.version == 3)
        assert terms(lookup.match(TEXT)) == ["word zero", "word number 3"]


FORK = """
    import os, sys
    from batchinfer import Lookup

    lookup = Lookup(sys.argv[1], "vaccines")
    if sys.argv[2] == "before":
        assert lookup.match("word zero")["matches"]
    child = os.fork()
    fine = lookup.match("word zero")["matches"][0]["term"] == "word zero"
    if child == 0:
        os._exit(0 if fine else 1)
    sys.exit(0 if fine and os.waitpid(child, 0)[1] == 0 else 1)
"""


@pytest.mark.parametrize("first", ["before", "after"])
@pytest.mark.long
def test_it_matches_on_in_the_child_of_a_fork(live: str | Path, first: str) -> None:
    """Whether the matcher was loaded before the fork or after it."""
    script = textwrap.dedent(FORK)
    subprocess.run([sys.executable, "-c", script, str(live), first], cwd=ROOT, check=True, timeout=60)


@pytest.mark.long
def test_without_the_extra_it_is_named(root: Path) -> None:
    """A match in a folder needs it, a look-up does not; nor does either need pyarrow or DuckDB."""
    script = """
        import sys
        from batchinfer import Lookup
        from batchinfer.errors import MissingExtra
        with Lookup(sys.argv[1], "vaccines") as lookup:
            assert lookup.get(thing="Comirnaty", language="en") is not None
            assert "daachorse" not in sys.modules
            assert lookup.match("the jab")["matches"]
        assert not {"pyarrow", "duckdb", "urllib3", "pydantic"} & set(sys.modules)
        sys.modules["daachorse"] = None
        try:
            Lookup(sys.argv[1], "vaccines").match("the jab")
        except MissingExtra as exc:
            print(exc)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(root)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    assert "pip install 'batchinfer-cache[match]'." in done.stdout


@pytest.mark.long
def test_an_old_service_is_told(source: str | Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One without the route answers 404 of another kind, which is no miss."""
    if way == "folder":
        return
    with Lookup(f"{source}/livez", "vaccines") as lookup, pytest.raises(StoreError, match="the status 404"):
        lookup.match("a")
