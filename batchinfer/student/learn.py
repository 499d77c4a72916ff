"""A student out of what a teacher says: learned on most texts, and held against the teacher on the others. Pure.

    texts, scores ─┬─► learned ──► weights ─┐
                   └─► held out ────────────┴─► threshold

What is held out is asked of the weights as the file has them, so that the promise is the file's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse

from batchinfer.core.arrays import Floats
from batchinfer.student.columns import HashedColumns, LearnedColumns, TokenColumns
from batchinfer.student.embeddings import Embeddings
from batchinfer.student.fit import Fitted
from batchinfer.student.likeness import only
from batchinfer.student.student import PAIR
from batchinfer.student.threshold import Threshold, find_threshold, judging_rows

GRAIN = 2.0**-20  # of thresholds, about a millionth: far more than sums of weights differ by, far less than scores do


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a teacher says of texts.

    texts: each once.
    scores: (texts, choices), the teacher's; those of a text add up to 1.
    held: (texts,), which are not learned from.
    asked: (texts,), which clients asked for and did not find, before the teacher answered them.
    """

    texts: list[str]
    scores: Floats
    held: npt.NDArray[np.bool_]
    asked: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Learned:
    """A student, and what it says of the texts that were held out.

    fitted: its weights.
    said: (held texts, choices), its scores.
    rounded_fitted: the weights of a student that learned the likeliest choices in place of scores.
    rounded: what that one says of the held texts.
    threshold: from which score on it may answer; None if nothing can be promised.
    asked: how many texts that clients asked for the threshold was found with; 0 where the list's were needed, too.
    columns: that it weighs.
    linear: what a linear student says of the held texts; None where this is one.
    """

    fitted: Fitted
    said: Floats
    rounded_fitted: Fitted
    rounded: Floats
    threshold: Threshold | None
    asked: int
    columns: LearnedColumns
    linear: Floats | None

    def answers(self, texts: list[str]) -> tuple[Floats, Floats]:
        """(texts, choices), its scores of other texts, and those of the student that learned rounded answers."""
        rows = self.columns.rows(texts)
        return said_by(rows, self.fitted), said_by(rows, self.rounded_fitted)

    def to_bytes(self, choices: tuple[str, ...]) -> bytes:
        """student.npz; one without a threshold answers nothing."""
        threshold = self.threshold.score if self.threshold else np.inf
        return self.columns.student(choices, threshold, self.fitted).to_bytes()


def learn(
    lesson: Lesson,
    agree: float,
    confidence: float,
    scale: Sequence[float] | None = None,
    embeddings: Embeddings | None = None,
) -> Learned:
    """agree, confidence: what is to be promised. scale: of the choices, as `fit` has it. embeddings: None for a linear student.

    At least one text is learned from, and one is held out.
    """
    choices = lesson.scores.shape[1]
    hashed = HashedColumns(len(lesson.texts), choices)
    columns: LearnedColumns = hashed if embeddings is None else TokenColumns(embeddings)
    rows = columns.rows(lesson.texts)
    learned, held = np.flatnonzero(~lesson.held), np.flatnonzero(lesson.held)
    known, goal, kept = rows[learned], lesson.scores[learned], rows[held]
    del rows
    fitted = columns.fit(known, goal, None, scale)
    rounded = columns.fit(known, only(goal.argmax(1), choices), fitted.penalty, scale)
    said, teacher = (
        _said_in_service(columns, fitted, [lesson.texts[number] for number in held]),
        lesson.scores[held].argmax(1),
    )
    judging = judging_rows(lesson.asked[held], agree, confidence)
    found = find_threshold(said.max(1)[judging], (said.argmax(1) == teacher)[judging], agree, confidence)
    asked = 0 if judging.all() and not lesson.asked[held].all() else int(judging.sum())
    linear = None if columns is hashed else _by_words(lesson, hashed, learned, held, scale)
    return Learned(fitted, said, rounded, said_by(kept, rounded), found and _lowered(found), asked, columns, linear)


def _said_in_service(columns: LearnedColumns, fitted: Fitted, texts: list[str]) -> Floats:
    """(texts, choices), the scores as the scorer itself adds them up: a sum in another order is off in its last digits."""
    names = tuple(map(str, range(PAIR if len(fitted.weights) == 1 else len(fitted.weights))))
    student = columns.student(names, 0.0, fitted)
    return np.array([student(text).scores for text in texts])


def _by_words(
    lesson: Lesson,
    columns: HashedColumns,
    learned: npt.NDArray[np.intp],
    held: npt.NDArray[np.intp],
    scale: Sequence[float] | None,
) -> Floats:
    """(held texts, choices), what a linear student of the same lesson says."""
    rows = columns.rows(lesson.texts)
    return said_by(rows[held], columns.fit(rows[learned], lesson.scores[learned], None, scale))


def _lowered(found: Threshold) -> Threshold:
    """A threshold is the score of a row, and so of all rows like it: other last digits must not drop them.

    They differ by the processor, and by whether a text's words were remembered.
    """
    return replace(found, score=(math.floor(found.score / GRAIN) - 1) * GRAIN)


def said_by(rows: sparse.csr_matrix, fitted: Fitted) -> Floats:
    """(rows, choices), the scores by these weights."""
    logits = rows @ fitted.weights.T + fitted.bias
    if logits.shape[1] == 1:
        logits = np.concatenate([logits, np.zeros_like(logits)], axis=1)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(odds / odds.sum(1, keepdims=True))
