"""A linear student: for each choice, the sum of the weights of a text's columns. One file, student.npz."""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from batchinfer.core.files import why_damaged
from batchinfer.errors import StoreError
from batchinfer.student import features as columns_of
from batchinfer.student.version import NewerStudent
from batchinfer.student.word_sums import WordSums

FORMAT = 1
MOST_BITS = 20
PAIR = 2  # choices, of which one stands for both
MOST_CHOICES = 1_000
MOST_LOGIT = 30.0


@dataclass(frozen=True, slots=True)
class StudentAnswer:
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


class LinearStudent:
    """Answers texts. Threads may share one.

    choices: in the job's order.
    threshold: the least score with which it answers.
    """

    def __init__(self, choices: tuple[str, ...], threshold: float, weights: npt.NDArray[np.floating[Any]],
                 bias: npt.NDArray[np.floating[Any]]) -> None:  # fmt: skip
        """weights: of each choice (of the first alone where there are two) and column. bias: of each of those choices."""
        self.choices, self.threshold = choices, threshold
        self._weights = weights  # for the file
        self._bias = np.asarray(bias, np.float64)
        self._biases: list[float] = self._bias.tolist()
        self._sums = WordSums(np.asarray(weights, np.float32))
        self._pair = len(choices) == PAIR

    def __call__(self, text: str) -> StudentAnswer:
        """Of a text without a word or a mark it knows nothing: it abstains."""
        sums = self._sums(text)
        logits = [one + other for one, other in zip(sums, self._biases, strict=True)] if sums else self._biases
        return self._answer(logits, knows=bool(sums))

    def _answer(self, logits: Sequence[float], *, knows: bool) -> StudentAnswer:
        if self._pair:
            first, second = scores = _two(logits[0])
            best = int(second > first)
            return StudentAnswer(scores, best, not knows or scores[best] < self.threshold)
        many = _many(logits)
        best = max(range(len(many)), key=many.__getitem__)
        return StudentAnswer(many, best, not knows or many[best] < self.threshold)

    def to_bytes(self) -> bytes:
        """The file, the same for the same student. Weights are rounded to 16 bits."""
        facts = {
            "format": FORMAT,
            "kind": "linear",
            "features": columns_of.VERSION,
            "choices": self.choices,
            "threshold": self.threshold,
        }
        said = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        with np.errstate(over="ignore"):
            weights = np.clip(self._weights, -6e4, 6e4).astype(np.float16)
        file = io.BytesIO()
        np.savez_compressed(file, facts=said, weights=weights, bias=self._bias)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Raises StoreError for what is no student, NewerStudent for one of a newer program."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                facts = json.loads(arrays["facts"].tobytes())
                if facts["format"] > FORMAT or facts["features"] > columns_of.VERSION:
                    raise NewerStudent("The student was made by a newer batchinfer: install that.")
                weights, bias = arrays["weights"], arrays["bias"]
            choices, threshold = tuple(map(str, facts["choices"])), float(facts["threshold"])
            _check(choices, weights, bias)
        except (ValueError, KeyError, TypeError, OSError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error,
                NotImplementedError) as exc:  # fmt: skip
            why = "it is not one" if "pickle" in str(exc) else why_damaged(exc)  # numpy would have it loaded unsafely
            raise StoreError(f"student.npz is truncated or corrupt: {why}.") from exc
        return cls(choices, threshold, weights, bias)


def _check(choices: tuple[str, ...], weights: npt.NDArray[Any], bias: npt.NDArray[Any]) -> None:
    """Raises ValueError for arrays that do not fit each other."""
    rows = 1 if len(choices) == PAIR else len(choices)
    if not PAIR <= len(choices) <= MOST_CHOICES or bias.shape != (rows,) or len(weights) != rows:
        raise ValueError("its weights do not fit its choices")
    if weights[0].ndim != 1 or weights[0].size.bit_count() != 1 or weights[0].size > 1 << MOST_BITS:
        raise ValueError("its weights are not those of a power of two columns")
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise ValueError("a weight is no number")


def _two(logit: float) -> tuple[float, float]:
    """The scores of two choices, by the logit of the first."""
    first = 1 / (1 + math.exp(-min(max(logit, -MOST_LOGIT), MOST_LOGIT)))
    return first, 1 - first


def _many(logits: Sequence[float]) -> tuple[float, ...]:
    most = max(logits)
    odds = [math.exp(logit - most) for logit in logits]
    total = sum(odds)
    return tuple([odd / total for odd in odds])
