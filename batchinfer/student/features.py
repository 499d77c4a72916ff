"""Which columns of a table of weights a text has: its words and pairs of words, and pieces of them of 2 to 4 characters.

    text ─► folded as terms are ─► words and marks, one space between ─► hashes of all runs wanted ─► columns

Words alone say nothing where they are not set apart (Chinese, Japanese, Thai); pieces alone forget what goes together.
All runs are hashed at once: a run's hash is a difference of two sums over the text, as in Rabin and Karp's search. Of a single
word they are hashed one by one, by Python's own numbers: numpy takes as long for a word as for a text. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from operator import add, mul
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from batchinfer.match.folding import EDGE, ODD, Folding

VERSION = 1  # raise it when a text has other columns: the weights of students that are there would not fit them
MOST_CHARACTERS = 8_192  # of a text, those at its beginning
LONGEST_FORM = 18  # characters that one becomes in normal form, at most
SPACE = 32
WORDS, PAIRS = 0, 1  # kinds of runs; pieces of n characters are of kind n
PIECES = (2, 3, 4)
LONGEST = 24  # characters of a word whose runs are hashed one by one

U64 = npt.NDArray[np.uint64]
Columns = npt.NDArray[np.intp]


def _powers(base: int, count: int) -> U64:
    powers, value = np.empty(count, np.uint64), 1
    for number in range(count):
        powers[number], value = value, value * base % (1 << 64)
    return powers


_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse: dividing by it takes a run's place out of its sum
_UP, _DOWN = (_powers(base, 2 * MOST_CHARACTERS + 2) for base in (_BASE, pow(_BASE, -1, 1 << 64)))
_ODD = _powers(0xBF58476D1CE4E5B9, 6)[1:]  # one for each kind of run, so that a word and a piece alike differ
_WORD, _PAIR, *_PIECES = (_DOWN * factor for factor in _ODD)  # what a run's difference of sums is multiplied by
# as arrays, which numpy takes in half the time of its own numbers
_HALF, _MIXED = np.array(32, np.uint64), _ODD[WORDS, ...]
_MASK = (1 << 64) - 1
_up: list[int] = _UP[: LONGEST + 2].tolist()  # the same as Python's own numbers
_odd: list[int] = _ODD.tolist()
_mixed = _odd[WORDS]
_PLACE = np.dtype(np.intp)
_ascii_words = re.compile("[a-z0-9]+|[^a-z0-9 ]+").findall


class TextColumns(NamedTuple):
    """The columns of one text, as often as it has them.

    every: those of words and pairs of words, then those of pieces of words.
    pieces_from: where the latter begin.
    """

    every: Columns
    pieces_from: int

    @property
    def words(self) -> Columns:
        return self.every[: self.pieces_from]

    @property
    def pieces(self) -> Columns:
        return self.every[self.pieces_from :]


class WordColumns(NamedTuple):
    """What a word adds to the columns of a text that has it.

    word: its column.
    pieces: those of its pieces, as often as it has them.
    begin, step, plain: by which `Features.pairs` gives pairs of words their columns.
    """

    word: int
    pieces: list[int]
    begin: int
    step: int
    plain: int


NOTHING = TextColumns(np.empty(0, np.intp), 0)


class Features:
    """Gives texts their columns, out of 2 ** bits."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self._shift = np.array(64 - bits, np.uint64)
        self._fold = Folding()

    def __call__(self, text: str) -> TextColumns:
        """No columns at all for a text of white space."""
        words = self.words(text)
        return self.columns(words) if words else NOTHING

    def words(self, text: str) -> list[str]:
        """The words and marks of a text, folded, in order."""
        if len(text) < MOST_CHARACTERS // 2 and text.isascii() and text.isprintable():  # most: in a third of the time
            return _ascii_words(text.lower().replace("_", ODD).replace("`", "'"))
        return self._fold(_beginning(text)).marked[:MOST_CHARACTERS].replace(EDGE, " ").split()

    def columns(self, words: Sequence[str]) -> TextColumns:
        """Of at least one word, of at most as many characters together as a text may have."""
        sums, space = _sums(words)
        hashes = np.concatenate((*_of_words(space, sums), *_of_pieces(~space, sums)))
        return TextColumns(self._columns(hashes), 2 * len(words) - 1)

    def of_word(self, word: str) -> WordColumns:
        """The same of a word alone, of at most LONGEST characters."""
        codes = [SPACE, *map(ord, word), SPACE]
        second, third, fourth = ([code * up for code in codes[at:]] for at, up in enumerate(_up[1:4], 1))
        two = list(map(add, codes, second))
        three = list(map(add, two, third))
        four = list(map(add, three, fourth))
        pieces = [piece * odd for runs, odd in zip((two, three, four), _odd[2:], strict=True) for piece in runs]
        plain, length = sum(map(mul, codes[1:-1], _up)) & _MASK, len(word)
        begin, step = (plain + SPACE * _up[length]) * _odd[PAIRS] & _MASK, _up[length + 1] * _odd[PAIRS] & _MASK
        [column] = self._columns_of([plain * _odd[WORDS]])
        return WordColumns(column, self._columns_of(pieces), begin, step, plain)

    def pairs(self, begins: Sequence[int], steps: Sequence[int], plains: Sequence[int]) -> list[int]:
        """The columns of words and the next, by what `of_word` says of each, in their order.

        That of a pair is found from begin + step * plain, where begin and step are of its first word, and plain is of the other.
        """
        return self._columns_of(map(add, begins, map(mul, steps, plains[1:])))

    def _columns_of(self, hashes: Iterable[int]) -> list[int]:
        """As `_columns`. hashes: of any number of bits, of which the lowest 64 count."""
        shift = 64 - self.bits
        return [(((hashed := number & _MASK) ^ hashed >> 32) * _mixed & _MASK) >> shift for number in hashes]

    def _columns(self, hashes: U64) -> Columns:
        hashes ^= hashes >> _HALF
        hashes *= _MIXED
        hashes >>= self._shift
        return hashes.view(_PLACE)


def _sums(words: Sequence[str]) -> tuple[U64, npt.NDArray[np.bool_]]:
    """Of words with one space before, between and behind: the sums up to each character, and which is a space."""
    codes = np.frombuffer(f" {' '.join(words)} ".encode("utf-32-le", "surrogatepass"), np.uint32)
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.add.accumulate(codes * _UP[: len(codes)], out=sums[1:])
    return sums, codes == SPACE


def _beginning(text: str) -> str:
    """What of a text counts: less of it where its normal form is longer, so that folding takes no longer."""
    if len(text) <= MOST_CHARACTERS // LONGEST_FORM:
        return text
    begin = text[:MOST_CHARACTERS]
    length = len(unicodedata.normalize("NFKC", begin))
    return begin if length <= MOST_CHARACTERS else begin[: MOST_CHARACTERS * len(begin) // length]


def _of_words(space: npt.NDArray[np.bool_], sums: U64) -> tuple[U64, U64]:
    """Of words, and of pairs of them."""
    spaces = space.nonzero()[0]
    starts = spaces[:-1] + 1
    first, ends = sums.take(starts), sums.take(spaces)
    words = (ends[1:] - first) * _WORD.take(starts)
    pairs = (ends[2:] - first[:-1]) * _PAIR.take(starts[:-1])
    return words, pairs


def _of_pieces(inside: npt.NDArray[np.bool_], sums: U64) -> tuple[U64, U64, U64]:
    """Those within words, with the space at a word's beginning and end."""
    two, three, four = [
        (sums[size:] - sums[:-size]) * factor[: len(sums) - size] for size, factor in zip(PIECES, _PIECES, strict=True)
    ]
    return two, *_within(inside, three, four)


def _within(inside: npt.NDArray[np.bool_], three: Any, four: Any) -> tuple[Any, Any]:
    """What there is at each place, where a piece of 3 or of 4 characters that begins there has no space but at its ends."""
    return three[inside[1:-1]], four[inside[1:-2] & inside[2:-1]]
