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
from batchinfer.student.file import read_student
from batchinfer.student.fit import fit, matrix
from batchinfer.student.learn import said_by
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
    read = read_student(made.to_bytes())
    assert (read.choices, read.threshold) == (made.choices, made.threshold)
    assert read.to_bytes() == made.to_bytes()
    logits = rows @ fitted.weights.T + fitted.bias
    for text, row in zip(texts, logits, strict=True):
        odds = np.exp(np.append(row, 0.0)) if kinds == 2 else np.exp(row)
        assert np.allclose(read(text).scores, odds / odds.sum(), atol=1e-3)


def rated(rows: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Texts of four words, each of which says how good a thing is, and a teacher's scores of 1 to 5 stars."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(40, size=(rows, 4))
    texts = [" ".join(f"w{number}x" for number in row) for row in drawn]
    odds = np.exp(-2 * (np.arange(5) - drawn.mean(1, keepdims=True) / 10) ** 2)
    return texts, odds / odds.sum(1, keepdims=True)


def test_choices_on_a_scale_share_their_weights() -> None:
    """Learned from few texts, the number that it expects of others is nearer to the teacher's; it still has a score of each choice."""
    (texts, scores), (others, theirs), stars = rated(100, 0), rated(300, 1), np.arange(5) / 4
    rows, further = matrix(Features(BITS), texts), matrix(Features(BITS), others)
    apart, shared = fit(rows, scores, 1e-5), fit(rows, scores, 1e-5, stars.tolist())
    assert np.linalg.matrix_rank(shared.weights) == 1 < np.linalg.matrix_rank(apart.weights)
    said_apart, said = said_by(further, apart), said_by(further, shared)
    assert np.allclose(said.sum(1), 1)
    assert np.abs((said - theirs) @ stars).mean() < np.abs((said_apart - theirs) @ stars).mean()
    read = LinearStudent(("1", "2", "3", "4", "5"), 0.0, shared.weights, shared.bias)
    assert np.allclose([read(text).scores for text in others[:20]], said[:20], atol=1e-3)


@pytest.mark.parametrize("middle", [0.25, 0.5, 0.9])
def test_on_a_scale_the_weights_learn_one_number_of_a_text(middle: float) -> None:
    """Teachers that expect the same of each text, and say each choice as often, teach the same."""
    rows, scale = matrix(Features(BITS), ["plum", "saw", "fig", "drill"]), [0, middle, 1]
    one = np.array([[0.4, 0.5, 0.1], [0.1, 0.5, 0.4], [0.3, 0.5, 0.2], [0.2, 0.6, 0.2]])
    other = one + 0.05 * np.outer([1, -1, -1, 1], [1 - middle, -1, middle])
    assert np.allclose(one @ scale, other @ scale)
    learned, same = (fit(rows, said, 1e-2, scale).weights for said in (one, other))
    assert np.allclose(learned, same, atol=1e-3 * np.abs(learned).max())
    apart, others = (fit(rows, said, 1e-2).weights for said in (one, other))
    assert not np.allclose(apart, others, atol=1e-2)


def test_two_choices_are_on_a_scale_anyway() -> None:
    """Numbers change nothing of what is learned of them."""
    texts, scores = sentences(2, 100)
    rows = matrix(Features(BITS), texts)
    plain, scaled = fit(rows, scores), fit(rows, scores, scale=[0, 1])
    assert np.array_equal(plain.weights, scaled.weights)
    assert np.array_equal(plain.bias, scaled.bias)


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
        read_student(content)


def test_flipped_bytes_are_noticed_or_do_no_harm() -> None:
    """Whatever lies in the file, it is a student that answers, or refused in a sentence."""
    content, rng = student(2).to_bytes(), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(StoreError):
            read_student(bytes(damaged))("apple saw")


@pytest.mark.parametrize("facts", [{"format": 3}, {"features": 99}])
def test_a_newer_student_is_told_apart(facts: dict[str, Any]) -> None:
    """It is not damaged."""
    with pytest.raises(NewerStudent, match="newer batchinfer"):
        read_student(altered(facts))
