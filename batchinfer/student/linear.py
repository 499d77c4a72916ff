"""A linear student: for each choice, the sum of the weights of a text's words, pairs of words and pieces of words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from batchinfer.student import features as columns_of
from batchinfer.student.student import Student
from batchinfer.student.word_sums import WordSums


class LinearStudent(Student):
    """Needs numpy and regex."""

    KIND, FORMAT = "linear", 1

    def __init__(self, choices: tuple[str, ...], threshold: float, weights: npt.NDArray[np.floating[Any]],
                 bias: npt.NDArray[np.floating[Any]]) -> None:  # fmt: skip
        """As of every student. There are a power of two columns."""
        numbers = np.asarray(weights, np.float32)
        super().__init__(choices, threshold, numbers, bias)
        self._sums = WordSums(numbers)

    def _own(self) -> tuple[Mapping[str, Any], Mapping[str, npt.NDArray[Any]]]:
        return {"features": columns_of.VERSION}, {}
