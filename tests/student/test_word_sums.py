"""Words that are remembered add what they add when they are read."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.match.folding import EDGE, Folding
from batchinfer.student import word_sums
from batchinfer.student.features import Features
from batchinfer.student.word_sums import LONGEST, WordSums

BITS = 12
features = Features(BITS)
weights = np.random.default_rng(0).normal(size=(3, 1 << BITS)).astype(np.float32)
texts = st.text(max_size=60) | st.text("ab ,_`", max_size=30) | st.sampled_from(["", "a" * 40, "fig, plum! " * 50])


@pytest.fixture(autouse=True)
def _one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few words are enough to be remembered."""
    monkeypatch.setattr(word_sums, "AT_ONCE", 1)


def plain(text: str, of: np.ndarray = weights) -> np.ndarray:
    """Column by column."""
    found = features(text)
    of_words, of_pieces = (of.take(part, axis=1).sum(1, dtype=np.float64) for part in (found.words, found.pieces))
    return np.asarray(of_words / math.sqrt(len(found.words)) + of_pieces / math.sqrt(len(found.pieces)))


@given(texts)
def test_words_have_the_columns_that_their_text_has(text: str) -> None:
    """In another order."""
    words = features.words(text)
    if not words:
        return
    found, whole = features.of_words(words), features(text)
    assert sorted([*found.words, *features.pairs(found.joints)]) == sorted(whole.words)
    assert sorted(found.pieces) == sorted(whole.pieces)
    for number, word in enumerate(words):
        alone = features.of_words([word])
        assert sorted(alone.pieces) == sorted(found.pieces[found.of_piece == number])
        assert np.array_equal(alone.joints, found.joints[number : number + 1])


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80) | st.text("aZ _`'.", max_size=30))
def test_plain_texts_have_the_words_that_folding_gives(text: str) -> None:
    """They are read in a shorter way."""
    assert features.words(text) == Folding()(text).marked.replace(EDGE, " ").split()


@given(st.lists(texts, min_size=1, max_size=6))
def test_what_is_remembered_adds_the_same(many: list[str]) -> None:
    """Again, and with words of earlier texts among new ones, for two choices and three."""
    for of in (weights[:1], weights):
        sums = WordSums(of)
        for text in many * 3:
            said = sums(text)
            assert said == [] if not features.words(text) else np.allclose(said, plain(text, of), atol=1e-4)


def test_a_full_memory_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """It never holds more than the most, nor a word of any length, and what it says stays right."""
    monkeypatch.setattr(word_sums, "MOST_REMEMBERED", 10)
    sums = WordSums(weights)
    for number in [*range(20), *range(20)] * 2:
        text = f"plum {number} fig {number * 7} " + "x" * (LONGEST + 1)
        sums(text[: -LONGEST - 1])
        assert np.allclose(sums(text), plain(text), atol=1e-4)
        assert len(sums._remembered) <= 10
        assert not any(len(word) > LONGEST for word in sums._remembered)


def test_long_words_take_no_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their characters are counted; and a word that is remembered is held once."""
    monkeypatch.setattr(word_sums, "MOST_CHARACTERS", 300)
    monkeypatch.setattr(word_sums, "AT_ONCE", 1)
    sums = WordSums(weights)
    for number in range(40):
        text = f"{number:0{LONGEST}d} fig"
        for _ in range(3):
            assert np.allclose(sums(text), plain(text), atol=1e-4)
        assert sum(map(len, sums._remembered)) <= 300 + LONGEST
        assert not sums._met & sums._remembered.keys()


def test_a_student_of_many_choices_remembers_no_words() -> None:
    """A word's numbers are as many as the choices. It says what one of few would say."""
    many = WordSums(np.concatenate([weights] * 4))
    said = many("plum, fig!")
    assert np.allclose(said[:3], plain("plum, fig!"), atol=1e-4)
    assert many("plum, fig!") == many("plum, fig!") == said
    assert (said[3:6], many._remembered, many(" ")) == (said[:3], {}, [])


def test_a_word_is_remembered_when_it_is_met_again() -> None:
    """Once met it takes little room."""
    sums = WordSums(weights)
    sums("plum fig")
    assert (sums._remembered, sums._met) == ({}, {"plum", "fig"})
    sums("plum pear")
    assert list(sums._remembered) == ["plum"]


def test_words_are_remembered_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word of its own would take as long as a text."""
    monkeypatch.setattr(word_sums, "AT_ONCE", 3)
    sums = WordSums(weights)
    for text, count in (("plum fig", 0), ("plum fig", 0), ("plum", 2), ("plum fig", 2)):
        assert np.allclose(sums(text), plain(text), atol=1e-4)
        assert len(sums._remembered) == count


def test_threads_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it forgets."""
    monkeypatch.setattr(word_sums, "MOST_REMEMBERED", 5)
    sums = WordSums(weights)
    asked = [f"plum {number % 9} fig {number % 7}" for number in range(400)]
    with ThreadPoolExecutor(4) as threads:
        said = list(threads.map(sums, asked))
    assert np.allclose(said, list(map(plain, asked)), atol=1e-4)
