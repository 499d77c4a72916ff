"""What all kinds of students are: weights of a text's columns for each choice, a threshold, and one file, student.npz."""

from __future__ import annotations

import io
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

PAIR = 2  # choices, of which one stands for both
MOST_LOGIT = 30.0


class StudentAnswer(NamedTuple):
    """What a student says to a text.

    scores: of each choice; they add up to 1.
    best: the number of the likeliest choice.
    abstains: whether its score is below the student's threshold.
    """

    scores: tuple[float, ...]
    best: int
    abstains: bool

    @property
    def score(self) -> float:
        """Of the likeliest choice."""
        return self.scores[self.best]


class Student(ABC):
    """Answers texts. Threads may share one.

    KIND: as `student.kind` in the job file has it.
    FORMAT: of its file: a program knows all up to its own.
    choices: in the job's order.
    threshold: the least score with which it answers.
    """

    KIND: ClassVar[str]
    FORMAT: ClassVar[int]
    _sums: Callable[[str], list[float]]
    """For each choice (for the first alone where there are two), what a text's weights add up to; empty where it has none."""

    def __init__(self, choices: tuple[str, ...], threshold: float, weights: npt.NDArray[np.floating[Any]],
                 bias: npt.NDArray[np.floating[Any]]) -> None:  # fmt: skip
        """weights: of each choice (of the first alone where there are two) and column. bias: of each of those choices."""
        self.choices, self.threshold = choices, threshold
        self._weights = weights  # for the file
        self._bias = np.asarray(bias, np.float64)
        self._biases: list[float] = self._bias.tolist()
        self._pair = len(choices) == PAIR

    def __call__(self, text: str) -> StudentAnswer:
        """Of a text without anything that it reads it knows nothing: it abstains."""
        sums = self._sums(text)
        knows = bool(sums)
        if self._pair:
            first, second = scores = _two(sums[0] + self._biases[0] if knows else self._biases[0])
            best = 1 if second > first else 0
            return StudentAnswer(scores, best, not knows or scores[best] < self.threshold)
        logits = [one + other for one, other in zip(sums, self._biases, strict=True)] if knows else self._biases
        many = _many(logits)
        best = max(range(len(many)), key=many.__getitem__)
        return StudentAnswer(many, best, not knows or many[best] < self.threshold)

    @abstractmethod
    def _own(self) -> tuple[Mapping[str, Any], Mapping[str, npt.NDArray[Any]]]:
        """What its kind has in the file beside weights: facts, and arrays."""

    def to_bytes(self) -> bytes:
        """The file, the same for the same student. Weights are rounded to 16 bits."""
        further, arrays = self._own()
        facts = {
            "format": self.FORMAT,
            "kind": self.KIND,
            **further,
            "choices": self.choices,
            "threshold": self.threshold,
        }
        said = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        with np.errstate(over="ignore"):
            weights = np.clip(self._weights, -6e4, 6e4).astype(np.float16)
        file = io.BytesIO()
        np.savez_compressed(file, facts=said, weights=weights, bias=self._bias, **dict[str, Any](arrays))
        return file.getvalue()


def _two(logit: float) -> tuple[float, float]:
    """The scores of two choices, by the logit of the first."""
    if not -MOST_LOGIT < logit < MOST_LOGIT:
        logit = math.copysign(MOST_LOGIT, logit)
    first = 1 / (1 + math.exp(-logit))
    return first, 1 - first


def _many(logits: Sequence[float]) -> tuple[float, ...]:
    most = max(logits)
    odds = [math.exp(logit - most) for logit in logits]
    total = sum(odds)
    return tuple([odd / total for odd in odds])
