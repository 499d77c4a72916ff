"""What each word of a text adds to a student's sums, remembered from text to text: most words of a text were asked before.

    text ─► words ─► what is remembered of each ─► sums, and the columns of pairs

A word's pieces lie within it, so all that it adds can be remembered, but for its pairs with its neighbours. Python's own numbers do all
of it for a text as people write them: numpy would take longer for a few dozen numbers, most of all in a service, where between two
texts a processor's caches were needed for all else that a request takes. It reads what is long, or mostly new, as a whole.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from batchinfer.student.features import LONGEST, Features

MOST_NUMBERS = 50_000  # that are remembered of words; some 6 MB
MOST_NEW = 12  # characters of new words of a text that are looked at one by one
LEARNING = 4  # one of so many texts with more than that has a word of it remembered
MOST_WORDS = 60  # of a text whose words are
MOST_CHOICES = 10  # of a student that remembers words
Word = tuple[Any, ...]
"""begin, step and plain, as features has them; how many pieces; of each choice the weight of the word; of each the sum of its pieces'."""


class WordSums:
    """Sums the weights of a text's columns. Threads may share one: what is remembered is not changed."""

    def __init__(self, weights: npt.NDArray[np.float32]) -> None:
        """weights: of each choice (of the first alone where there are two) and column."""
        self._weights = [np.ascontiguousarray(row) for row in weights]
        self._views = [row.data for row in self._weights]  # numbers of Python's own
        self._features = Features(weights.shape[1].bit_length() - 1)
        self._most_words = MOST_WORDS if len(weights) <= MOST_CHOICES else 0
        self._remembered = dict[str, Word]()
        self._most_remembered = MOST_NUMBERS // (4 + 2 * len(weights))
        self._left = itertools.count()  # texts in which too much was new

    def __call__(self, text: str) -> list[float]:
        """Of each choice, the mean weight of words and pairs and that of pieces, each times the root of how many there are.

        Empty for a text without a word or a mark.
        """
        names = self._features.words(text)
        if not names:
            return []
        words = self._words(names) if len(names) <= self._most_words else None
        if words is None:
            return self._at_once(names)
        begins, steps, plains, counts, *sums = zip(*words, strict=True)
        pairs = self._features.pairs(begins, steps, plains)
        of_words, of_pieces, half = math.sqrt(2 * len(names) - 1), math.sqrt(sum(counts)), len(self._views)
        return [
            (sum(sums[choice]) + sum([weights[pair] for pair in pairs])) / of_words
            + sum(sums[half + choice]) / of_pieces
            for choice, weights in enumerate(self._views)
        ]

    def _words(self, names: Sequence[str]) -> list[Word] | None:
        """All of a text; None where too much is new, of which a word is remembered now and then."""
        words: list[Any] = list(map(self._remembered.get, names))
        if None not in words:
            return words
        new = list(dict.fromkeys([name for name, word in zip(names, words, strict=True) if word is None]))
        if sum(map(len, new)) > MOST_NEW:
            if next(self._left) % LEARNING == 0 and len(new[0]) <= LONGEST:
                self._remember(new[0])
            return None
        added = {name: self._remember(name) for name in new}
        return [added[name] if word is None else word for name, word in zip(names, words, strict=True)]

    def _remember(self, name: str) -> Word:
        found = self._features.of_word(name)
        word = (
            found.begin, found.step, found.plain, len(found.pieces), *[weights[found.word] for weights in self._views],
            *[sum([weights[piece] for piece in found.pieces]) for weights in self._views],
        )  # fmt: skip
        if len(self._remembered) >= self._most_remembered:
            self._remembered = {}  # what is asked now is likelier to be asked again
        self._remembered[name] = word
        return word

    def _at_once(self, names: Sequence[str]) -> list[float]:
        """The same by numpy, without what is remembered; always so for many choices, of which each word would have as many numbers."""
        columns, words_end = self._features.columns(names)
        of_words, of_pieces = math.sqrt(words_end), math.sqrt(len(columns) - words_end)
        sums = [np.add.reduceat(weights[columns], (0, words_end)).tolist() for weights in self._weights]
        return [words / of_words + pieces / of_pieces for words, pieces in sums]
