"""Which columns of a table of weights a text has: its words and pairs of words, and pieces of them of 2 to 4 characters.

    text ─► folded as terms are ─► words and marks, one space between ─► hashes of all runs wanted ─► columns

Words alone say nothing where they are not set apart (Chinese, Japanese, Thai); pieces alone forget what goes together.
All runs are hashed at once: a run's hash is a difference of two sums over the text, as in Rabin and Karp's search. Pure.
"""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from batchinfer.match.folding import EDGE, Folding

VERSION = 1  # raise it when a text has other columns: the weights of students that are there would not fit them
MOST_CHARACTERS = 8_192  # of a text, those at its beginning
LONGEST_FORM = 18  # characters that one becomes in normal form, at most
SPACE = 32
WORDS, PAIRS = 0, 1  # kinds of runs; pieces of n characters are of kind n
PIECES = (2, 3, 4)

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
_HALF = np.uint64(32)


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


NOTHING = TextColumns(np.empty(0, np.intp), 0)


class Features:
    """Gives texts their columns, out of 2 ** bits."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self._shift = np.uint64(64 - bits)
        self._fold = Folding()

    def __call__(self, text: str) -> TextColumns:
        """No columns at all for a text of white space."""
        tokens = self._fold(_beginning(text)).marked[:MOST_CHARACTERS].replace(EDGE, " ").split()
        if not tokens:
            return NOTHING
        codes = np.frombuffer(f" {' '.join(tokens)} ".encode("utf-32-le", "surrogatepass"), np.uint32)
        sums = np.zeros(len(codes) + 1, np.uint64)
        np.cumsum(codes * _UP[: len(codes)], out=sums[1:])
        space = codes == SPACE
        hashes = np.concatenate((*_of_words(space, sums), *_of_pieces(~space, sums)))
        hashes ^= hashes >> _HALF
        hashes *= _ODD[WORDS]
        hashes >>= self._shift
        return TextColumns(hashes.view(np.intp), 2 * len(tokens) - 1)


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
    return two, three[inside[1:-1]], four[inside[1:-2] & inside[2:-1]]
