"""Which columns a text has."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.match.folding import EDGE, Folded, Folding
from batchinfer.student.features import MOST_CHARACTERS, PIECES, Features

BITS = 20
features = Features(BITS)
fold = Folding()


def runs(text: str) -> tuple[list[str], list[str]]:
    """The words and pairs of words of a text, and the pieces of them, one by one."""
    words = fold(text[:MOST_CHARACTERS]).marked[:MOST_CHARACTERS].replace(EDGE, " ").split()
    line = f" {' '.join(words)} " if words else ""
    pieces = [line[at : at + size] for size in PIECES for at in range(len(line) - size + 1)]
    pairs = [" ".join(pair) for pair in itertools.pairwise(words)]
    return words + pairs, [piece for piece in pieces if " " not in piece[1:-1]]


@given(st.text(max_size=60) | st.text("ab ä比", max_size=30))
def test_each_run_has_its_own_column(text: str) -> None:
    """As many columns as there are runs, and as many different ones: 2 ** 20 columns seldom coincide."""
    found, (words, pieces) = features(text), runs(text)
    assert (len(found.words), len(found.pieces)) == (len(words), len(pieces))
    for columns, expected in ((found.words, words), (found.pieces, pieces)):
        counted, wanted = Counter(columns.tolist()), Counter(expected)
        assert len(wanted) - 2 <= len(counted) <= len(wanted)


@given(st.text("abc ", min_size=1, max_size=12), st.text("xyz ", max_size=40))
def test_a_run_has_the_same_column_anywhere(text: str, before: str) -> None:
    """What stands before it does not matter."""
    alone, behind = features(text), features(f"{before} | {text}")
    for some, more in ((alone.words, behind.words), (alone.pieces, behind.pieces)):
        assert not Counter(some.tolist()) - Counter(more.tolist())


@pytest.mark.parametrize("text", ["", " ", "\n\t\x1f", "\u200b"])
def test_a_text_of_nothing_has_no_columns(text: str) -> None:
    """White space and what has no width."""
    found = features(text)
    assert len(found.words) == len(found.pieces) == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [("GREAT Day", "great  day"), ("ﬁne", "fine"), ("can’t", "can't"), ("Straße", "STRASSE"), ("ｶﾞ", "ガ")],
)
def test_texts_that_matching_takes_for_alike_are_alike(one: str, other: str) -> None:
    """Case, width, spaces and apostrophes do not count."""
    assert np.array_equal(features(one).words, features(other).words)
    assert np.array_equal(features(one).pieces, features(other).pieces)


def test_a_word_and_a_piece_alike_differ() -> None:
    """A word's column is not that of the piece of the same characters."""
    assert features("ab").words[0] not in features("cabd").pieces


def test_no_more_is_folded_than_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A character that 18 stand for in normal form costs no more than these: a text of such is folded in part."""
    folded: list[str] = []
    inner = Features(BITS)

    def noting(text: str) -> Folded:
        folded.append(text)
        return fold(text)

    monkeypatch.setattr(inner, "_fold", noting)
    for text in (
        "\ufdfa" * MOST_CHARACTERS,
        "word \ufdfa" * MOST_CHARACTERS,
        "word " * MOST_CHARACTERS,
        "\ufdfa" * 400,
    ):
        inner(text)
    lengths = [len(fold(text).marked) for text in folded]
    assert max(lengths) <= 1.5 * MOST_CHARACTERS  # with the marks of edges
    assert folded[2:] == [("word " * MOST_CHARACTERS)[:MOST_CHARACTERS], "\ufdfa" * 400]


def test_what_is_beyond_the_most_characters_does_not_count() -> None:
    """A long text costs no more than its beginning."""
    text = "word " * MOST_CHARACTERS
    assert np.array_equal(features(text).pieces, features(text + "more").pieces)


@pytest.mark.parametrize("text", ["\ud83d", "a\udcff b", "\x00", "👩‍👩‍👧 😀", "۱۲۳", "ﷺ" * 3000])
def test_any_text_will_do(text: str) -> None:
    """Halves of pairs, controls, emoji, a character that folds to eighteen."""
    assert len(features(text).pieces) > 0
    assert features(text).pieces.max() < 1 << BITS
