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
from batchinfer.student.features import LONGEST, Features
from batchinfer.student.word_sums import LEARNING, MOST_WORDS, WordSums

BITS = 12
features = Features(BITS)
weights = np.random.default_rng(0).normal(size=(3, 1 << BITS)).astype(np.float32)
texts = st.text(max_size=60) | st.text("ab ,_`", max_size=30) | st.sampled_from(["", "a" * 40, "fig, plum! " * 50])


def plain(text: str, of: np.ndarray = weights) -> np.ndarray:
    """Column by column."""
    found = features(text)
    of_words, of_pieces = (of.take(part, axis=1).sum(1, dtype=np.float64) for part in (found.words, found.pieces))
    return np.asarray(of_words / math.sqrt(len(found.words)) + of_pieces / math.sqrt(len(found.pieces)))


@given(texts)
def test_words_have_the_columns_that_their_text_has(text: str) -> None:
    """In another order: by Python's numbers they are what they are by numpy's."""
    words = features.words(text)
    if not words or max(map(len, words)) > LONGEST:
        return
    found, whole = [features.of_word(word) for word in words], features(text)
    pairs = features.pairs(*([getattr(each, name) for each in found] for name in ("begin", "step", "plain")))
    assert sorted([*(each.word for each in found), *pairs]) == sorted(whole.words)
    assert sorted(column for each in found for column in each.pieces) == sorted(whole.pieces)


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
    monkeypatch.setattr(word_sums, "MOST_NUMBERS", 10 * (4 + 2 * len(weights)))
    sums = WordSums(weights)
    for number in [*range(20), *range(20)] * 2:
        text = f"plum {number} fig {number * 7} " + "x" * (LONGEST + 1)
        sums(text[: -LONGEST - 1])
        assert np.allclose(sums(text), plain(text), atol=1e-4)
        assert 0 < len(sums._remembered) <= 10
        assert not any(len(word) > LONGEST for word in sums._remembered)


def test_a_student_of_many_choices_remembers_no_words() -> None:
    """A word's numbers are as many as the choices. It says what one of few would say."""
    many = WordSums(np.concatenate([weights] * 4))
    said = many("plum, fig!")
    assert np.allclose(said[:3], plain("plum, fig!"), atol=1e-4)
    assert many("plum, fig!") == many("plum, fig!") == said
    assert (said[3:6], many._remembered, many(" ")) == (said[:3], {}, [])


def test_a_text_of_new_words_is_read_at_once() -> None:
    """One by one they would take longer. One is remembered now and then, so that texts alike soon have none that is new."""
    sums = WordSums(weights)
    text = " ".join(f"plum{number}" for number in range(10))
    for _ in range(8 * LEARNING):
        assert np.allclose(sums(text), plain(text), atol=1e-4)
    assert len(sums._remembered) == 10
    assert sums(f"{'plum' * LONGEST} fig") is not None
    assert len(sums._remembered) == 10


def test_a_long_text_is_read_at_once() -> None:
    """Of very many words numpy adds the weights up sooner than Python."""
    sums = WordSums(weights)
    text = "fig plum " * MOST_WORDS
    assert np.allclose(sums(text), plain(text), atol=1e-4)
    assert sums._remembered == {}


def test_a_new_word_is_looked_at_once() -> None:
    """However often a text has it."""
    sums = WordSums(weights)
    assert np.allclose(sums("fig fig fig fig fig"), plain("fig fig fig fig fig"), atol=1e-4)
    assert list(sums._remembered) == ["fig"]


def test_threads_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it forgets."""
    monkeypatch.setattr(word_sums, "MOST_NUMBERS", 5 * (4 + 2 * len(weights)))
    sums = WordSums(weights)
    asked = [f"plum {number % 9} fig {number % 7}" for number in range(400)]
    with ThreadPoolExecutor(4) as threads:
        said = list(threads.map(sums, asked))
    assert np.allclose(said, list(map(plain, asked)), atol=1e-4)
