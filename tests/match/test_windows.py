"""Long texts are folded and searched in windows, and nothing comes of that: the same is found at the same places."""

from __future__ import annotations

import json
import tracemalloc
from functools import partial
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchinfer.errors import UsageError
from batchinfer.match import windows
from batchinfer.match.budget import MatchBudget, ResultTooLarge, TooMuchWork
from batchinfer.match.folding import EDGE, Folded, Folding, _is_hangul, _is_word
from tests.factories import World
from tests.serving import names_job

SIGNS = [
    *"abhaXZ019 _-'’é´¨ßﬁİI\t\n", *"\u0301\u0316\u200b\u00ad한글ㅎㅏ한疫苗ｱﾞワกำ", *"\ufdfa\ufc5e\ufe70😀\u0345ᾳ²™ςΣ㌀Ⅷ٣",
    "\ud800", "\x1f", "\x01", "ক", "ি", "  ", "   ", "👩\u200d",
]  # fmt: skip
Found = list[tuple[str, tuple[int, int], bool]]


class General(Folding):
    """The general way of folding; the quicker ones give the same, but for spans that end within a cluster."""

    def __call__(self, text: str) -> Folded:
        return self._by_cluster(text)


def is_pattern(text: str) -> bool:
    """Whether a part of a folded text could be a term's normal form."""
    inner = text.strip(EDGE)
    return bool(inner) and all(
        sign == inner_sign or bool(_is_word(inner_sign) or (_is_hangul(inner_sign)))
        for sign, inner_sign in ((text[0], inner[0]), (text[-1], inner[-1]))
    ) and len(text) - len(inner) <= 2 and not text.startswith(EDGE * 2) and not text.endswith(EDGE * 2)  # fmt: skip


def parts(window: windows.Window, longest: int) -> Found:
    """All that could be found in a window, where, and whether it would leave a mark behind."""
    marked = window.marked
    places = [
        (start, end)
        for end in range(window.fresh + 1, len(marked) + 1)
        for start in range(max(0, end - longest), end)
        if is_pattern(marked[start:end])
    ]
    spans = window.spans(places)
    return [(marked[start:end], span, window.cuts(end)) for (start, end), span in zip(places, spans, strict=True)]


@settings(max_examples=150, deadline=None)
@given(
    text=st.lists(st.sampled_from(SIGNS), min_size=1, max_size=80).map("".join),
    size=st.integers(1, 9), step=st.integers(1, 30), longest=st.integers(1, 12), accents=st.booleans(),
)  # fmt: skip
@example(text="aa bb한글cc dd", size=2, step=1, longest=4, accents=True)
def test_windows_have_what_the_whole_text_has(text: str, size: int, step: int, longest: int, accents: bool) -> None:
    """Wherever a text is cut, each of its parts that could be a term is found once, at its place in the text."""
    fold = General(accents=accents)
    whole = windows.Window(*whole_of(text, fold))
    found = [part for window in windows.windows(fold, text, longest, size, step) for part in parts(window, longest)]
    assert found == parts(whole, longest)


@settings(max_examples=200, deadline=None)
@given(text=st.lists(st.sampled_from(SIGNS), min_size=1, max_size=40).map("".join), accents=st.booleans())
@example(text="a-" * 30, accents=True)
@example(text="a한" * 30, accents=True)
@example(text="\ufdfa" * 30, accents=True)
def test_how_long_a_text_is_at_most(text: str, accents: bool) -> None:
    """The bound by which windows overlap is never less than the normal form's length."""
    fold = Folding(accents=accents)
    assert len(fold(text).marked) <= windows.most_marked(fold, text)


def whole_of(text: str, fold: Folding) -> tuple[str, int, list[windows._Piece]]:
    folded = fold(text)
    return folded.marked, 0, [windows._Piece(0, 0, 0, folded)]


NESTED = ["哈" * number for number in range(1, 61)]


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, World]:
    """Versions with 60 terms that hold each other: all matches, and those that do not overlap."""
    return {
        overlaps: names_job(
            tmp_path_factory.mktemp("home") / "home", "nested", {("laugh", "zh"): NESTED},
            match={"terms": ["prediction.names"], "concept": "thing", "language": "language", "min_length": 1, "overlaps": overlaps},
        )
        for overlaps in (True, False)
    }  # fmt: skip


@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.long
def test_terms_within_terms(nested: dict[bool, World], windowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them is found wherever it ends; without overlaps the longest are, one after the other."""
    if windowed:
        monkeypatch.setattr(windows, "windows", partial(windows.windows, size=50, step=60))
        monkeypatch.setattr(windows, "LEAST_STEP", 60)
    text, plenty = "哈" * 130 + ".", MatchBudget(seconds=60)
    with nested[True].served() as version:
        found = {(match.start, match.end) for match in version.matcher.find(text, budget=plenty)}
        assert found == {(end - length, end) for end in range(1, 131) for length in range(1, min(end, 60) + 1)}
    with nested[False].served() as version:
        spans = [(match.start, match.end) for match in version.matcher.find(text, budget=plenty)]
        assert spans == [(0, 60), (60, 120), (120, 130)]


@pytest.mark.parametrize("overlaps", [True, False])
@pytest.mark.parametrize("text", ["哈" * 349_000, "哈" * 2_000])
@pytest.mark.long
def test_too_much_is_refused_before_it_is_gathered(nested: dict[bool, World], overlaps: bool, text: str) -> None:
    """A text in which terms stand at too many places costs little memory, and one sentence says what to do."""
    with nested[overlaps].served() as version:
        found = version.matcher
        found.find("哈")
        tracemalloc.start()
        try:
            with pytest.raises(UsageError, match=r"match fewer or shorter texts\.$"):
                found.find_json(text, budget=MatchBudget(room=1 << 20, places=20_000, seconds=60))
            assert tracemalloc.get_traced_memory()[1] < 20 << 20
        finally:
            tracemalloc.stop()


def test_a_batch_shares_its_budget(nested: dict[bool, World]) -> None:
    """What one text uses up, the next ones do not have."""
    with nested[True].served() as version:
        budget = MatchBudget(room=10_000)
        assert len(json.loads(version.matcher.find_json("哈" * 10, budget=budget))) == 55
        with pytest.raises(ResultTooLarge, match="more than 10,000 bytes"):
            version.matcher.find_json("哈" * 10, budget=budget)
        with pytest.raises(TooMuchWork, match="more than 50 places"):
            version.matcher.find("哈" * 10, budget=MatchBudget(places=50))
        with pytest.raises(TooMuchWork, match="Matching takes more than 0 s"):
            version.matcher.find("哈", budget=MatchBudget(seconds=0))


def test_a_term_that_names_too_much(nested: dict[bool, World]) -> None:
    """It is not even read: the sentence says how to publish without it."""
    with nested[True].served() as version, pytest.raises(ResultTooLarge, match=r"match\.generic: drop"):
        version.matcher.find("哈", budget=MatchBudget(names=10))


@pytest.mark.parametrize("text", ["a b " * 5_000, "a\u0301 " * 5_000, "疫苗 " * 5_000, " " * 9_000, "\u0301" * 9_000])
def test_long_texts_are_whole_in_their_windows(text: str) -> None:
    """The fresh parts of the windows follow one another without a gap, and are what the text is as a whole."""
    fold = Folding()
    marked, seen = "", 0
    for window in windows.windows(fold, text, 100):
        marked += window.marked[window.fresh :]
        seen += 1
    assert marked == fold(text).marked or not text.strip(" \u0301")
    assert seen >= 1


def test_nothing_is_lost_where_a_matcher_has_very_long_terms(tmp_path: Path) -> None:
    """A term that is longer than a window is found in a text of many."""
    term = "long " * 8_000 + "end"
    world = names_job(tmp_path / "home", "long", {("x", "en"): [term]})
    with world.served() as version:
        text = "before " * 20_000 + term.upper() + " after" * 20_000
        [match] = version.matcher.find(text)
        assert text[match.start : match.end] == term.upper()


@pytest.mark.parametrize("text", ["comirnaty™ ", "a™️", "5㎏", "№5", "x™y", "İ™i\u0307"])
def test_symbols_end_words_also_where_slices_meet(text: str) -> None:
    """A long text has the boundaries that it has as a whole, wherever it is cut."""
    fold = Folding()
    for lead in range(4):
        long = "." * lead + text * 40
        folded = "".join(
            window.marked[window.fresh :] for window in windows.windows(fold, long, 50, size=7, step=10**6)
        )
        assert folded == fold(long).marked
