"""A student of static embeddings: what it learns of vectors, its file, what it answers, and folders that have none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE, Unigram, WordLevel, WordPiece
from tokenizers.pre_tokenizers import Whitespace

from batchinfer.errors import InputError, MissingExtra, StoreError
from batchinfer.student.columns import TokenColumns
from batchinfer.student.embeddings import MOST_BITS, Embeddings, most_choices, read_embeddings
from batchinfer.student.file import read_student
from batchinfer.student.learn import Learned, Lesson, learn, said_by
from batchinfer.student.student import Student
from batchinfer.student.tokens import Tokens, TokenStudent
from tests.embedded import OTHERS, UNKNOWN, WORDS, by_kind, embeddings_in, tokenizer, vectors
from tests.student.test_linear import KINDS, sentences

ROWS = 400


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return embeddings_in(tmp_path / "embeddings")


def learned_of(folder: Path, kinds: int = 2) -> tuple[Lesson, Learned]:
    texts, scores = sentences(kinds, ROWS)
    held = np.arange(ROWS) % 4 == 0
    lesson = Lesson(texts, scores, held, np.zeros(ROWS, dtype=bool))
    return lesson, learn(lesson, 0.7, 0.9, embeddings=read_embeddings(folder))


def student_of(folder: Path, kinds: int = 2) -> Student:
    return read_student(learned_of(folder, kinds)[1].to_bytes(tuple(KINDS)[:kinds]))


@pytest.mark.parametrize("kinds", [2, 3])
def test_it_knows_words_that_it_never_read(folder: Path, kinds: int) -> None:
    """Their vectors lie beside those of words that it did read: that is what embeddings are for."""
    student = student_of(folder, kinds)
    for number, kind in enumerate(list(KINDS)[:kinds]):
        said = student(" ".join(OTHERS[kind]))
        assert (said.best, said.abstains) == (number, False)
    lesson, learned = learned_of(folder, kinds)
    assert learned.linear is not None
    assert learned.linear.shape == learned.said.shape
    assert (learned.said.argmax(1) == lesson.scores[lesson.held].argmax(1)).mean() > 0.8


@pytest.mark.parametrize("kinds", [2, 3])
def test_one_number_for_each_token_says_what_the_vectors_say(folder: Path, kinds: int) -> None:
    """A head on the mean of vectors, and the mean of what it says of each: the same within a thousandth."""
    lesson, learned = learned_of(folder, kinds)
    assert isinstance(learned.columns, TokenColumns)
    student = read_student(learned.to_bytes(tuple(KINDS)[:kinds]))
    texts = [text for text, is_held in zip(lesson.texts, lesson.held, strict=True) if is_held]
    assert np.array_equal([student(text).scores for text in texts], learned.said)
    assert np.allclose(said_by(learned.columns.rows(texts), learned.fitted), learned.said, atol=1e-6)
    means = np.array([np.mean([by_kind(word) for word in text.split()], axis=0) for text in texts])
    head, *_ = np.linalg.lstsq(means - means.mean(0), np.log(learned.said[:, 0] / learned.said[:, 1]), rcond=None)
    told = (means - means.mean(0)) @ head
    odds = np.log(learned.said[:, 0] / learned.said[:, 1])
    assert np.allclose(told, odds - odds.mean(), atol=0.02)


def test_tokens_that_it_does_not_know_count_for_nothing(folder: Path) -> None:
    """And of a text without any that it knows it says nothing."""
    student = student_of(folder)
    assert student("apple zzz").scores == student("apple").scores
    for text in ("", "  \n\t", "zzz"):
        assert student(text).abstains
    assert student("apple \ud800").scores == student("apple").scores


def test_the_same_student_has_the_same_file(folder: Path) -> None:
    """With its tokenizer, and all that answering needs."""
    content = learned_of(folder)[1].to_bytes(("fruit", "tool"))
    assert content == learned_of(folder)[1].to_bytes(("fruit", "tool"))
    read = read_student(content)
    assert isinstance(read, TokenStudent)
    assert read.to_bytes() == content


def test_vectors_may_be_shared_and_weighed(tmp_path: Path) -> None:
    """As model2vec writes them where its vocabulary is quantised."""
    plain = read_embeddings(embeddings_in(tmp_path / "plain"))
    count = len(plain.vectors)
    own = vectors()
    shared = embeddings_in(
        tmp_path / "shared",
        arrays={
            "embeddings": own[::-1].copy(),
            "mapping": np.arange(count)[::-1].copy(),
            "weights": np.full(count, 2.0),
        },
    )
    assert np.allclose(read_embeddings(shared).vectors, 2 * plain.vectors)
    other = embeddings_in(tmp_path / "other", arrays={"embedding.weight": own.astype(np.float16)})
    assert np.allclose(read_embeddings(other).vectors, plain.vectors, atol=1e-2)


def spoil(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def arrays(found: dict[str, Any]) -> Callable[[Path], object]:
    return lambda folder: save_file(found, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "cannot be read: No such file"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be read: "),
        (spoil("model.safetensors", b"\x08" + b"\0" * 20), "cannot be read: "),
        (spoil("tokenizer.json", b"{}"), "its tokenizer cannot be read"),
        (spoil("tokenizer.json", b"\xff\xfe"), "its tokenizer cannot be read"),
        (arrays({"vectors": vectors()}), "model.safetensors has no array embeddings or embedding.weight"),
        (arrays({"embeddings": vectors()[1:]}), f"the tokenizer has {len(WORDS) + 1} tokens, and there are {len(WORDS)} vectors"),
        (arrays({"embeddings": vectors() * np.nan}), "a vector has what is no number"),
        (arrays({"embeddings": vectors()[0]}), "its vectors are no table of tokens and dimensions"),
        (arrays({"embeddings": vectors(), "mapping": np.arange(99)}), "has no static embeddings as model2vec writes them"),
    ],
)  # fmt: skip
def test_a_folder_that_has_none(folder: Path, damage: Callable[[Path], object], said: str) -> None:
    """It is named, and what is wrong with it."""
    damage(folder)
    with pytest.raises(InputError) as caught:
        read_embeddings(folder)
    assert said in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("tokenizer", [b"{}", tokenizer([*WORDS, "more"]), b""])
def test_a_file_whose_tokenizer_does_not_fit(tokenizer: bytes) -> None:
    """It is damaged, as any file that is cut is."""
    made = student_with(tokenizer=b"")
    assert b"tokenizer" in made
    with pytest.raises(StoreError, match=r"student\.npz is truncated or corrupt"):
        read_student(student_with(tokenizer=tokenizer))


def student_with(tokenizer: bytes) -> bytes:
    """A student's file with any tokenizer."""
    good = TokenStudent(("a", "b"), 0.5, np.zeros((1, len(WORDS) + 1)), np.zeros(1), globals()["tokenizer"](WORDS))
    good._tokenizer = tokenizer
    return good.to_bytes()


@pytest.mark.parametrize("missing", ["tokenizers", "safetensors"])
def test_what_is_not_installed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """With the extra that brings it: to learn one, to answer with one, and for the embeddings of a package."""
    content = learned_of(folder)[1].to_bytes(("fruit", "tool"))
    with pytest.raises(MissingExtra, match=r"wordllama, whose embeddings .*batchinfer-cache\[wordllama\]"):
        read_embeddings(None)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtra, match=r"batchinfer-cache\[model2vec\]"):
        read_embeddings(folder)
    monkeypatch.delitem(sys.modules, "batchinfer.student.tokens")
    if missing == "tokenizers":
        with pytest.raises(MissingExtra, match=r"batchinfer-cache\[model2vec\]"):
            read_student(content)


def test_the_package_is_read_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are all that is wanted of it."""
    package = tmp_path / "wordllama"
    (package / "tokenizers").mkdir(parents=True)
    (package / "weights").mkdir()
    (package / "__init__.py").write_text("raise RuntimeError", encoding="utf-8")
    (package / "tokenizers" / "l2_supercat_tokenizer_config.json").write_bytes(tokenizer(WORDS))
    save_file({"embedding.weight": vectors()}, package / "weights" / "l2_supercat_256.safetensors")
    monkeypatch.syspath_prepend(tmp_path)
    assert np.allclose(read_embeddings(None).vectors, vectors())


def test_its_weights_are_bounded() -> None:
    """There is one for each token and choice; so many tokens leave room for so many choices."""
    big = Embeddings(b"", np.zeros((32_000, 1), np.float32))
    assert most_choices(big) == (1 << MOST_BITS) // 32_000
    assert most_choices(Embeddings(b"", np.zeros((1 << 20, 1), np.float32))) == 2


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (Unigram([("pear", -1.0), ("?", -9.0)], unk_id=1), [0]),
        (WordPiece({"pear": 0, UNKNOWN: 1}, unk_token=UNKNOWN), [0]),
        (WordLevel({"pear": 0, UNKNOWN: 1}, unk_token=UNKNOWN), [0]),
        (BPE({"p": 0, UNKNOWN: 1}, [], unk_token=UNKNOWN), [0]),
        (BPE({"p": 0, "z": 1}, []), [0, 1, 1]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_tokenizer_does_not_know_is_left_out(model: Any, found: list[int]) -> None:
    """Of every kind, however its file says it; one that knows all leaves nothing out."""
    made = Tokenizer(model)
    made.pre_tokenizer = Whitespace()
    text = "p zz" if isinstance(model, BPE) else "pear zz"
    assert Tokens(made.to_str().encode())(text).tolist() == found
