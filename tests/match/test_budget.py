"""Terms that name very much: what a request costs, and what is kept of it, is bounded by what they name, too."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchinfer.match import budget as budgets
from batchinfer.match import names
from batchinfer.match.budget import MatchBudget, ResultTooLarge, TooMuchWork
from batchinfer.match.folding import Folding
from batchinfer.match.matcher import Matcher
from batchinfer.match.version import MATCHER
from batchinfer.versions.folders import folder_of
from tests.factories import LENIENT, imports_job

MANY = 400
SPELLINGS = ["iliki", "İLİKİ", "iLiKi", "İlİkİ", "iLİki", "ilİKi"]  # of one Turkish word, in either case


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two terms that name 400 concepts each, one in Turkish and German, one in English, and one that names a single thing."""
    rows = [("iliki", str(number), "tr" if number % 2 else "de") for number in range(MANY)]
    rows += [("other", str(number), "en") for number in range(MANY)] + [("single", "0", "en")]
    key = dict(zip(("term", "concept", "language"), map(list, zip(*rows, strict=True)), strict=True))
    world = imports_job(
        tmp_path_factory.mktemp("world") / "job", key, input={"path": "queries.parquet", "key": list(key)},
        match={"terms": ["term"], "concept": "concept", "language": "language"}, gate=LENIENT,
    )  # fmt: skip
    world.take_in(key | {"prediction": ["x"] * len(rows)})
    world.publish()
    return folder_of(world.data, 1) / MATCHER


@pytest.fixture
def matcher(file: Path) -> Matcher:
    """One that has read nothing yet of what its terms name."""
    return Matcher(file)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each question was asked about what a term names."""
    counts = Counter[str]()

    def counting(owner: Any, name: str) -> None:
        ask: Callable[..., bool] = getattr(owner, name)

        def noted(*arguments: Any) -> bool:
            counts[name] += 1
            return ask(*arguments)

        monkeypatch.setattr(owner, name, noted)

    counting(names, "is_in")
    counting(Folding, "is_spelled")
    return counts


def test_each_language_and_each_term_is_looked_at_once(matcher: Matcher, asked: Counter[str]) -> None:
    """However many things a term names."""
    [match] = matcher.find("İlİKİ", languages=["tr", "az"])
    assert len(match.names) == MANY // 2
    assert asked == {"is_in": 2, "is_spelled": 1}


class Watched(MatchBudget):
    """Counts how often the clock was looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def check_time(self) -> None:
        self.looks += 1


def looked_at() -> int:
    """How much the garbage collector has to look at: objects, and what is in lists and tuples of them."""
    gc.collect()  # which lets go of tuples of nothing but texts and numbers
    return sum(1 + (len(each) if isinstance(each, list | tuple) else 0) for each in gc.get_objects())


def test_what_a_term_names_is_little_work_for_the_collector(matcher: Matcher) -> None:
    """It would look at all of it again and again, and the whole service wait for it; also where it is written out."""
    matcher.find_json("single")
    before = looked_at()
    assert matcher.find_json("iliki other").count(b'"concept"') == 2 * MANY
    assert looked_at() < before + MANY / 4


def test_that_a_term_names_nothing_in_a_language_is_kept(matcher: Matcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read again and again."""
    assert matcher.find("other", languages=["fr"]) == []
    monkeypatch.setattr(matcher._named, "_read", None)
    assert matcher.find("other", languages=["fr"]) == []


def test_the_clock_is_looked_at_for_each_that_is_read(matcher: Matcher) -> None:
    """So a request ends in time whatever the terms in its text name; what is known takes none."""

    def looks(text: str) -> int:
        budget = Watched()
        assert matcher.find(text, budget=budget)
        return budget.looks

    matcher._named.kept.clear()
    matcher._named._spelled.clear()
    looks("single")
    for text in ("other", "iliki", "İlİKİ"):
        first = looks(text)
        assert looks(text) == looks("single") < first


def test_a_term_that_names_much_is_no_short_work_also_where_it_is_known(matcher: Matcher) -> None:
    """What was read for one request is not written out on the event loop for the next."""
    few = MatchBudget(names=1000)
    assert matcher.find("single", budget=few)
    matcher.find("other")
    with pytest.raises(ResultTooLarge, match="names more than a reply has room for"):
        matcher.find("other", budget=few)


@pytest.mark.parametrize("room", [0, names.MOST_KEPT])
def test_what_the_terms_of_one_request_name_is_bounded(file: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """All of it may be held until the answer is written. Each term counts once, whatever is kept of other requests."""
    monkeypatch.setattr(names, "MOST_KEPT", room)
    monkeypatch.setattr(budgets, "MATCH_NAMES", 2 * MANY * names.LEAST_NAME - 1)
    matcher = Matcher(file)
    for _ in range(2):
        for text in ("iliki other", "iliki " * 999 + "other"):
            with pytest.raises(TooMuchWork, match="What the terms in the texts name takes more than"):
                matcher.find(text)
        assert len(matcher.find("other single " * 500)) == 1000


def test_a_term_is_read_once_a_request(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little is kept, and however its texts go on."""
    monkeypatch.setattr(names, "MOST_KEPT", 0)
    matcher, budget, reads = Matcher(file), MatchBudget(), Counter[int]()
    read = matcher._named._read

    def noted(number: int, ranges: tuple[str, ...]) -> names.Named:
        reads[number] += 1
        return read(number, ranges)

    monkeypatch.setattr(matcher._named, "_read", noted)
    for _ in range(3):
        assert len(matcher.find("iliki other İLİKİ " * 999, budget=budget)) == 2997
    assert sorted(reads.values()) == [1, 1]


def test_spellings_take_little_room(file: Path, monkeypatch: pytest.MonkeyPatch, asked: Counter[str]) -> None:
    """They share what their term names, so each is looked at once, where there is room for the term and a little more."""
    monkeypatch.setattr(names, "MOST_KEPT", 2 * MANY * names.LEAST_NAME)
    matcher = Matcher(file)
    for _ in range(3):
        for text in SPELLINGS:
            [match] = matcher.find(text)
            assert len(match.names) == MANY
    assert asked["is_spelled"] == len(SPELLINGS)


def test_what_is_kept_of_spellings_is_bounded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of another spelling go, and are found again; so is what their term names, which they hold."""
    monkeypatch.setattr(names, "MOST_KEPT", MANY * names.LEAST_NAME + 3 * names.RANGE)
    matcher = Matcher(file)
    known = matcher._named
    for _ in range(3):
        for text in SPELLINGS:
            [match] = matcher.find(text)
            assert len(match.names) == MANY
            assert len(known.kept) == 1
            assert 1 <= len(known._spelled) <= 3
            assert {entries for entries, _ in known._spelled} == set(known.kept.values())
        assert len(matcher.find(" ".join(SPELLINGS))) == len(SPELLINGS)
