"""From a teacher's scores to a student with a threshold: what is held out is asked as a service asks."""

from __future__ import annotations

import numpy as np

from batchinfer.student.file import read_student
from batchinfer.student.learn import GRAIN, Learned, Lesson, learn
from tests.student.test_linear import sentences

ROWS = 400


def learned_of(kinds: int) -> tuple[Lesson, Learned]:
    texts, scores = sentences(kinds, ROWS)
    held = np.arange(ROWS) % 4 == 0
    lesson = Lesson(texts, scores, held, np.zeros(ROWS, dtype=bool))
    return lesson, learn(lesson, 0.7, 0.9)


def test_the_row_at_the_threshold_is_answered() -> None:
    """By the file as by the trainer, to the last digit: of few words many texts have the very same score."""
    for kinds in (2, 3):
        lesson, learned = learned_of(kinds)
        assert learned.threshold is not None
        student = read_student(learned.to_bytes(tuple("abc"[:kinds])))
        texts = [text for text, is_held in zip(lesson.texts, lesson.held, strict=True) if is_held]
        said = [student(text) for text in texts]
        assert np.array_equal([answer.scores for answer in said], learned.said)
        assert np.mean([not answer.abstains for answer in said]) == learned.threshold.answered


def test_a_threshold_leaves_room_for_another_processors_last_digits() -> None:
    """It is a multiple of a millionth or so, at least one under the score of the row that it was found by."""
    _, learned = learned_of(3)
    assert learned.threshold is not None
    least = min(score for score in learned.said.max(1) if score >= learned.threshold.score)
    assert GRAIN <= least - learned.threshold.score < 2 * GRAIN
    assert learned.threshold.score % GRAIN == 0
