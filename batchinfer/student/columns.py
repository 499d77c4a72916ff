"""How each kind of student learns: which columns texts have, weights of these, and the student that has them.

kind        columns                              what the weights are fitted to
linear      hashes of words and pieces of them   the columns
model2vec   tokens                               the mean of the tokens' vectors; then one weight for each token
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from batchinfer.core.arrays import Floats
from batchinfer.student.embeddings import MOST_BITS, Embeddings
from batchinfer.student.features import Features
from batchinfer.student.fit import Fitted, fit, matrix
from batchinfer.student.linear import LinearStudent
from batchinfer.student.student import PAIR, Student

FEW_ROWS, FEW_BITS, MANY_BITS = 50_000, 16, 18  # hashed columns are 2 ** bits


class LearnedColumns(ABC):
    """The columns that a kind of student weighs."""

    @abstractmethod
    def rows(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """(texts, columns), how much each counts."""

    @abstractmethod
    def fit(
        self, rows: sparse.csr_matrix, targets: Floats, penalty: float | None, scale: Sequence[float] | None
    ) -> Fitted:
        """The weights of these rows' columns, as `batchinfer.student.fit.fit` has its parameters."""

    @abstractmethod
    def student(self, choices: tuple[str, ...], threshold: float, fitted: Fitted) -> Student:
        """What answers with such weights."""


class HashedColumns(LearnedColumns):
    """Those of a linear student."""

    def __init__(self, texts: int, choices: int) -> None:
        """Of so many texts, for so many choices: all weights together stay within bounds."""
        self.bits = min(FEW_BITS if texts < FEW_ROWS else MANY_BITS, MOST_BITS - (lines(choices) - 1).bit_length())

    def rows(self, texts: Sequence[str]) -> sparse.csr_matrix:
        return matrix(Features(self.bits), texts)

    def fit(
        self, rows: sparse.csr_matrix, targets: Floats, penalty: float | None, scale: Sequence[float] | None
    ) -> Fitted:
        return fit(rows, targets, penalty, scale)

    def student(self, choices: tuple[str, ...], threshold: float, fitted: Fitted) -> Student:
        return LinearStudent(choices, threshold, fitted.weights, fitted.bias)


class TokenColumns(LearnedColumns):
    """Those of a student of static embeddings."""

    def __init__(self, embeddings: Embeddings) -> None:
        from batchinfer.student.tokens import Tokens

        self._embeddings, self._tokens = embeddings, Tokens(embeddings.tokenizer)

    def rows(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """Each token counts by its share of the text's."""
        indices = [self._tokens(text) for text in texts]
        counts = np.array([len(each) for each in indices], np.int64)
        values = np.repeat((1 / np.maximum(counts, 1)).astype(np.float32), counts)
        joined = np.concatenate([*indices, np.empty(0, np.intp)]).astype(np.int32)
        return sparse.csr_matrix(
            (values, joined, np.append(0, np.cumsum(counts))), shape=(len(texts), self._tokens.count)
        )

    def fit(
        self, rows: sparse.csr_matrix, targets: Floats, penalty: float | None, scale: Sequence[float] | None
    ) -> Fitted:
        """Dimensions are standardised by the rows; since a text's tokens count 1 together, that is a standard for each vector."""
        means = rows @ self._embeddings.vectors
        middle, spread = means.mean(0), means.std(0)
        spread = np.maximum(spread, spread.max() * 1e-6 + 1e-12) * np.sqrt(means.shape[1])
        found = fit((means - middle) / spread, targets, penalty, scale)
        weights = ((self._embeddings.vectors - middle) / spread) @ found.weights.T
        return Fitted(np.ascontiguousarray(weights.T.astype(np.float16), np.float32), found.bias, found.penalty)

    def student(self, choices: tuple[str, ...], threshold: float, fitted: Fitted) -> Student:
        from batchinfer.student.tokens import TokenStudent

        return TokenStudent(choices, threshold, fitted.weights, fitted.bias, self._embeddings.tokenizer)


def lines(choices: int) -> int:
    """Of weights: one for each choice, or one for two."""
    return 1 if choices == PAIR else choices
