"""Reads student.npz, whatever kind of student it has."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from batchinfer.core.files import UNREAD, why_damaged
from batchinfer.errors import MissingExtra, StoreError
from batchinfer.student.student import PAIR, Student
from batchinfer.student.version import NewerStudent

FORMAT = 2  # the newest that this program knows
LINEAR, MODEL2VEC = "linear", "model2vec"
MOST_BITS = 20
MOST_CHOICES = 1_000


def read_student(content: bytes) -> Student:
    """Raises StoreError for what is no student, NewerStudent for one of a newer program, MissingExtra for what its kind needs."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            facts = json.loads(arrays["facts"].tobytes())
            if facts["format"] > FORMAT:
                raise NewerStudent("The student was made by a newer batchinfer: install that.")
            weights, bias = arrays["weights"], arrays["bias"]
            choices, threshold = tuple(map(str, facts["choices"])), float(facts["threshold"])
            _check(choices, weights, bias)
            if facts["kind"] == MODEL2VEC:
                return _of_tokens(choices, threshold, weights, bias, arrays["tokenizer"].tobytes())
            return _of_words(choices, threshold, weights, bias, facts["features"])
    except UNREAD as exc:
        raise _damaged(exc) from exc
    except (EOFError, MemoryError, zipfile.BadZipFile, zlib.error, NotImplementedError) as exc:
        raise _damaged(exc) from exc


def _damaged(exc: Exception) -> StoreError:
    why = "it is not one" if "pickle" in str(exc) else why_damaged(exc)  # numpy would have it loaded unsafely
    return StoreError(f"student.npz is truncated or corrupt: {why}.")


def _of_words(
    choices: tuple[str, ...], threshold: float, weights: npt.NDArray[Any], bias: npt.NDArray[Any], features: int
) -> Student:
    """features: the version of those that its weights are of."""
    try:
        from batchinfer.student.features import VERSION
        from batchinfer.student.linear import LinearStudent
    except ModuleNotFoundError as exc:
        raise MissingExtra("numpy or regex, which a student needs,", "student") from exc
    if features > VERSION:
        raise NewerStudent("The student was made by a newer batchinfer: install that.")
    if weights[0].size.bit_count() != 1 or weights[0].size > 1 << MOST_BITS:
        raise ValueError("its weights are not those of a power of two columns")
    return LinearStudent(choices, threshold, weights, bias)


def _of_tokens(
    choices: tuple[str, ...], threshold: float, weights: npt.NDArray[Any], bias: npt.NDArray[Any], tokenizer: bytes
) -> Student:
    try:
        from batchinfer.student.tokens import TokenStudent
    except ModuleNotFoundError as exc:
        raise MissingExtra("tokenizers or regex, which a student of static embeddings needs,", "model2vec") from exc
    return TokenStudent(choices, threshold, weights, bias, tokenizer)


def _check(choices: tuple[str, ...], weights: npt.NDArray[Any], bias: npt.NDArray[Any]) -> None:
    """Raises ValueError for arrays that do not fit each other."""
    rows = 1 if len(choices) == PAIR else len(choices)
    if not PAIR <= len(choices) <= MOST_CHOICES or bias.shape != (rows,) or len(weights) != rows:
        raise ValueError("its weights do not fit its choices")
    if weights[0].ndim != 1:
        raise ValueError("its weights are not those of columns")
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise ValueError("a weight is no number")
