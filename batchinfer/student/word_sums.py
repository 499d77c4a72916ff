"""What each word of a text adds to a student's sums, remembered from text to text: most words of a text were asked before.

    text ─► words ─► what is remembered of each, as bytes ─► one table ─► sums, and the columns of pairs

A word's pieces lie within it, so all that it adds can be remembered, but for its pairs with its neighbours. A word is remembered when
it is met again, since many are never. A text with one that is not remembered is read at once.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from batchinfer.student.features import Features

MOST_REMEMBERED = 20_000  # words; some 5 MB of a student of two choices
MOST_CHARACTERS = 400_000  # of them together
MOST_MET = 20_000
AT_ONCE = 64  # words that are remembered together
MOST_CHOICES = 10  # of a student that remembers words, which then take twice as much
LONGEST = 32  # characters of a word that is remembered
_UINT64, _add_rows = np.dtype(np.uint64), np.add.reduce


class WordSums:
    """Sums the weights of a text's columns. Threads may share one: what is remembered is not changed."""

    def __init__(self, weights: npt.NDArray[np.float32]) -> None:
        """weights: of each choice (of the first alone where there are two) and column."""
        self._weights = [np.ascontiguousarray(row) for row in weights]
        self._features = Features(weights.shape[1].bit_length() - 1)
        self._numbers = 2 * len(weights) + 1
        self._pack = struct.Struct(f"={self._numbers}d3Q").pack
        self._remembered = dict[str, bytes]()
        """Of each choice the weight of a word, then of each the sum of its pieces' weights, how many pieces there are, and its joint."""
        self._characters = 0  # of the words that are remembered
        self._met = set[str]()  # words that were asked, and are not remembered
        self._again = list[str]()  # those that were met again, and are to be remembered

    def __call__(self, text: str) -> list[float]:
        """Of each choice, the mean weight of words and pairs and that of pieces, each times the root of how many there are.

        Empty for a text without a word or a mark.
        """
        names = self._features.words(text)
        if not names:
            return []
        if len(self._weights) > MOST_CHOICES:
            return self._at_once(names)
        words: list[Any] = list(map(self._remembered.get, names))
        if None in words:
            self._meet([name for name, word in zip(names, words, strict=True) if word is None])
            return self._at_once(names)
        table = np.frombuffer(b"".join(words)).reshape(len(names), -1)
        sums = _add_rows(table[:, : self._numbers]).tolist()
        pairs = self._features.pairs(table.view(_UINT64)[:, self._numbers :])
        of_words, of_pieces, half = math.sqrt(2 * len(names) - 1), math.sqrt(sums[-1]), len(self._weights)
        return [
            (sums[choice] + sum(weights[pairs].tolist())) / of_words + sums[half + choice] / of_pieces
            for choice, weights in enumerate(self._weights)
        ]

    def _meet(self, names: Sequence[str]) -> None:
        """Remembers words that were met before, some at a time: for one it takes as long as a text."""
        self._again += [name for name in names if name in self._met]
        if len(self._met) > MOST_MET:
            self._met = set()
        self._met.update([name for name in names if len(name) <= LONGEST])
        if len(self._again) >= AT_ONCE:
            again, self._again = self._again, []
            self._remember(list(dict.fromkeys(again)))

    def _remember(self, names: Sequence[str]) -> None:
        found, count = self._features.of_words(names), len(names)
        sums: list[Any] = [weights.take(found.words) for weights in self._weights]
        sums += [np.bincount(found.of_piece, weights.take(found.pieces), count) for weights in self._weights]
        sums.append(np.bincount(found.of_piece, minlength=count))
        for name, numbers, joint in zip(names, np.stack(sums, 1).tolist(), found.joints.tolist(), strict=True):
            self._keep(name, self._pack(*numbers, *joint))

    def _keep(self, name: str, word: bytes) -> None:
        if len(self._remembered) >= MOST_REMEMBERED or self._characters > MOST_CHARACTERS:
            self._remembered, self._characters = {}, 0  # what is asked now is likelier to be asked again
        self._remembered[name] = word
        self._characters += len(name)
        self._met.discard(name)

    def _at_once(self, names: Sequence[str]) -> list[float]:
        """The same without what is remembered; always so for many choices, of which each word would have as many numbers."""
        columns, words_end = self._features.columns(names)
        of_words, of_pieces = math.sqrt(words_end), math.sqrt(len(columns) - words_end)
        sums = [np.add.reduceat(weights[columns], (0, words_end)).tolist() for weights in self._weights]
        return [words / of_words + pieces / of_pieces for words, pieces in sums]
