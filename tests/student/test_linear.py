"""A linear student: what was learned, its file, what it answers."""

from __future__ import annotations

import contextlib
import functools
import io
import json
from typing import Any

import numpy as np
import pytest

from batchinfer.errors import StoreError
from batchinfer.student.features import Features
from batchinfer.student.fit import fit, matrix
from batchinfer.student.linear import LinearStudent
from batchinfer.student.version import NewerStudent

BITS = 12
KINDS = {
    "fruit": "apple pear plum peach fig",
    "tool": "hammer saw drill chisel file",
    "place": "Ulm Bern Graz Linz Wien",
}


def sentences(kinds: int, rows: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Texts of two words of one kind and two of any, and a teacher's scores: sure where all are of one kind."""
    rng = np.random.default_rng(seed)
    words = [text.split() for text in list(KINDS.values())[:kinds]]
    of = rng.integers(kinds, size=(rows, 4))
    of[:, 1] = of[:, 0]
    texts = [" ".join(words[kind][rng.integers(5)] for kind in row) for row in of]
    counts = np.stack([(of == kind).sum(1) for kind in range(kinds)], axis=1)
    odds = np.exp(counts * 1.5)
    return texts, odds / odds.sum(1, keepdims=True)


@functools.cache
def student(kinds: int, threshold: float = 0.0) -> LinearStudent:
    texts, scores = sentences(kinds, 300)
    fitted = fit(matrix(Features(BITS), texts), scores)
    return LinearStudent(tuple(KINDS)[:kinds], threshold, fitted.weights, fitted.bias)


@pytest.mark.parametrize("kinds", [2, 3])
def test_it_learns_scores(kinds: int) -> None:
    """On further texts its scores are near the teacher's, and add up to 1."""
    learned = student(kinds)
    texts, scores = sentences(kinds, 200, seed=1)
    said = np.array([learned(text).scores for text in texts])
    assert np.allclose(said.sum(1), 1)
    assert np.abs(said - scores).mean() < 0.05
    assert [learned(text).best for text in texts] == said.argmax(1).tolist()


@pytest.mark.parametrize("kinds", [2, 3])
def test_the_file_says_what_the_trainer_said(kinds: int) -> None:
    """Within a thousandth, though weights are rounded; and the same student has the same file."""
    texts, scores = sentences(kinds, 300)
    rows = matrix(Features(BITS), texts)
    fitted = fit(rows, scores)
    made = LinearStudent(tuple(KINDS)[:kinds], 0.5, fitted.weights, fitted.bias)
    read = LinearStudent.from_bytes(made.to_bytes())
    assert (read.choices, read.threshold) == (made.choices, made.threshold)
    assert read.to_bytes() == made.to_bytes()
    logits = rows @ fitted.weights.T + fitted.bias
    for text, row in zip(texts, logits, strict=True):
        odds = np.exp(np.append(row, 0.0)) if kinds == 2 else np.exp(row)
        assert np.allclose(read(text).scores, odds / odds.sum(), atol=1e-3)


def test_below_its_threshold_it_abstains() -> None:
    """It says how sure it is in any case."""
    sure, unsure = student(2, threshold=0.7)("apple plum fig pear"), student(2, threshold=0.7)("apple plum saw drill")
    assert (sure.abstains, unsure.abstains) == (False, True)
    assert sure.score > 0.7 > unsure.score >= 0.5


@pytest.mark.parametrize("text", ["", " ", "比", "x" * 100_000, "\ud83d"])
def test_it_answers_any_text(text: str) -> None:
    """Also what it never saw anything like."""
    assert sum(student(3)(text).scores) == pytest.approx(1)


@pytest.mark.parametrize("text", ["", " ", "\u200b"])
def test_it_knows_nothing_of_a_text_without_a_word(text: str) -> None:
    """It abstains, whatever its threshold: nothing like it was ever held against the model."""
    assert student(2, threshold=0.0)(text).abstains
    assert not student(2, threshold=0.0)("比").abstains


def altered(facts: dict[str, Any] | None = None, **arrays: Any) -> bytes:
    """A student's file with other content."""
    with np.load(io.BytesIO(student(2).to_bytes())) as file:
        content = dict(file)
    if facts:
        said = json.loads(content["facts"].tobytes()) | facts
        content["facts"] = np.frombuffer(json.dumps(said).encode(), np.uint8)
    out = io.BytesIO()
    np.savez_compressed(out, **(content | arrays))
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"PK", b"no zip at all", student(2).to_bytes()[:-40], altered(weights=np.zeros((1, 5))),
        altered(weights=np.zeros((2, 4096), np.float16)), altered(weights=np.zeros(4096)), altered(bias=np.zeros(3)),
        altered(weights=np.full((1, 4096), np.nan)), altered(facts={"choices": ["one"]}), altered(facts={"threshold": "x"}),
        altered(facts={"choices": None}), altered(weights=np.array([[{}]], object)),
    ],
    ids=range(13),
)  # fmt: skip
def test_a_damaged_file_is_refused(content: bytes) -> None:
    """In a sentence, and nothing in it is ever executed."""
    with pytest.raises(StoreError, match=r"^student\.npz is truncated or corrupt: "):
        LinearStudent.from_bytes(content)


def test_flipped_bytes_are_noticed_or_do_no_harm() -> None:
    """Whatever lies in the file, it is a student that answers, or refused in a sentence."""
    content, rng = student(2).to_bytes(), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(StoreError):
            LinearStudent.from_bytes(bytes(damaged))("apple saw")


@pytest.mark.parametrize("facts", [{"format": 2}, {"features": 99}])
def test_a_newer_student_is_told_apart(facts: dict[str, Any]) -> None:
    """It is not damaged."""
    with pytest.raises(NewerStudent, match="newer batchinfer"):
        LinearStudent.from_bytes(altered(facts))
