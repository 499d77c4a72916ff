"""What each word of a text adds to a student's sums, remembered from text to text: most words of a text were asked before.

A word is remembered when it is met again, since many are never. A text with one that is not remembered is read at once.

A word's pieces lie within it, so all that it adds can be remembered, but for its pairs with its neighbours. What was remembered
is added up without numpy: each of its calls lets another thread take over, which a look-up has to wait for, and 23 words are few.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from batchinfer.student.features import Features, Joint

MOST_REMEMBERED = 10_000  # words; some 5 MB of a student of two choices
MOST_MET = 20_000
AT_ONCE = 64  # words that are remembered together
MOST_CHOICES = 10  # of a student that remembers words, which then take twice as much
LONGEST = 32  # characters of a word that is remembered


class _Word(NamedTuple):
    """sums: of each choice the weight of the word, then of each the sum of its pieces' weights, then how many pieces there are."""

    sums: tuple[float, ...]
    joint: Joint


class WordSums:
    """Sums the weights of a text's columns. Threads may share one: what is remembered is not changed."""

    def __init__(self, weights: npt.NDArray[np.float32]) -> None:
        """weights: of each choice (of the first alone where there are two) and column."""
        self._lists = [array("f", row.tobytes()) for row in weights]
        self._weights = [np.frombuffer(row, np.float32) for row in self._lists]
        self._features = Features(weights.shape[1].bit_length() - 1)
        self._remembered = dict[str, _Word]()
        self._met = set[str]()  # words that were asked
        self._again = list[str]()  # those that were met again, and are to be remembered

    def __call__(self, text: str) -> list[float]:
        """Of each choice, the mean weight of words and pairs and that of pieces, each times the root of how many there are.

        Empty for a text without a word or a mark.
        """
        names = self._features.words(text)
        if not names:
            return []
        if len(self._lists) > MOST_CHOICES:
            return self._at_once(names)
        words: list[Any] = list(map(self._remembered.get, names))
        if None in words:
            self._meet([name for name, word in zip(names, words, strict=True) if word is None])
            return self._at_once(names)
        sums = list(map(sum, zip(*[word.sums for word in words], strict=True)))
        pairs = self._features.pairs([word.joint for word in words])
        of_words, of_pieces, half = math.sqrt(2 * len(words) - 1), math.sqrt(sums[-1]), len(self._lists)
        return [
            (sums[choice] + sum(map(weights.__getitem__, pairs))) / of_words + sums[half + choice] / of_pieces
            for choice, weights in enumerate(self._lists)
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
        words = list(map(_Word, np.stack(sums, 1).tolist(), found.joints))
        for name, word in zip(names, words, strict=True):
            if len(self._remembered) >= MOST_REMEMBERED:  # what is asked now is likelier to be asked again
                self._remembered = {}
            self._remembered[name] = word

    def _at_once(self, names: Sequence[str]) -> list[float]:
        """The same without what is remembered; always so for many choices, of which each word would have as many numbers."""
        columns = self._features.columns(names)
        of_words, of_pieces = math.sqrt(len(columns.words)), math.sqrt(len(columns.pieces))
        return [
            float(
                np.add.reduce(weights.take(columns.words)) / of_words
                + np.add.reduce(weights.take(columns.pieces)) / of_pieces
            )
            for weights in self._weights
        ]
