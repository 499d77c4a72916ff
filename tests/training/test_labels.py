"""What an adapter learns from: labels of people, of a file and of another job, apart from golden rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchinfer.core.home import JobData
from batchinfer.errors import BatchinferError, InputError, NotFound, TooFewRows, UsageError
from batchinfer.planning.prompts import PromptMaker
from batchinfer.training.dataset import DataSet, gather
from batchinfer.training.labels import Labels, read_labels
from tests.factories import LENIENT, PretendTokenizer, World, model_job, write

CHOICES = ["fruit", "tool"]
ROWS = 60
KEYS = [f"{'pear' if number % 2 == 0 else 'saw'} {number}" for number in range(ROWS)]


def kind(text: str) -> str:
    """The right answer."""
    return CHOICES[0 if text.startswith("pear") else 1]


def says(row: dict[str, Any]) -> list[float]:
    """The model finds everything a fruit."""
    return [-0.1, -2.4]


def make(folder: Path, **sections: Any) -> World:
    return model_job(
        folder, {"text": KEYS},
        **{
            "input": {"path": "queries.parquet", "key": ["text"]}, "output": {"type": "choice", "choices": CHOICES},
            "gate": LENIENT, "finetune": {},
        } | sections,
    )  # fmt: skip


def labels_of(world: World) -> Labels:
    assert world.job.spec.finetune is not None
    with world.prepared() as prepared:
        return read_labels(prepared, world.job.spec.finetune.labels)


def texts_of(world: World, labels: Labels) -> dict[str, str]:
    """The labels by the texts of their rows."""
    with world.prepared() as prepared:
        rows = prepared.workspace.db.execute("SELECT lookup_hash, q_text FROM list").fetchall()
    return {text: labels.answers[bytes(key)] for key, text in rows if bytes(key) in labels.answers}


def gathered(world: World, window: int | None = None) -> DataSet:
    spec = world.job.spec.finetune
    assert spec is not None
    tokenizer = PretendTokenizer()
    with world.prepared() as prepared:
        assert prepared.question is not None
        return gather(prepared, spec, PromptMaker(world.job, prepared.question, tokenizer), tokenizer, window)


def answers(texts: list[str]) -> dict[str, list[str]]:
    """A file of right answers."""
    return {"text": texts, "answer": [kind(text) for text in texts]}


@contextlib.contextmanager
def refused(error: type[BatchinferError], *said: str) -> Iterator[None]:
    with pytest.raises(error) as caught:
        yield
    for part in said:
        assert part in str(caught.value)


def test_what_people_said_last_holds(tmp_path: Path) -> None:
    """Imports, accepted values and corrections are labels; of two choices a rejected one leaves the other."""
    world = make(tmp_path)
    world.answer(says)
    world.publish()
    world.take_in({"text": KEYS[:3], "prediction": ["fruit", "tool", "tool"]})
    marks = {
        KEYS[4]: {"verdict": "accept"}, KEYS[5]: {"verdict": "correct", "corrected": "tool"}, KEYS[7]: {"verdict": "reject"},
        KEYS[2]: {"verdict": "correct", "corrected": "fruit"},
    }  # fmt: skip
    rows = [row | marks.get(row["key_text"] if "key_text" in row else row["text"], {}) for row in world.review()]
    world.judge(rows)
    labels = labels_of(world)
    found = texts_of(world, labels)
    assert {text: found.get(text) for text in (*KEYS[:2], *KEYS[4:8])} == {
        KEYS[0]: "fruit", KEYS[1]: "tool", KEYS[4]: "fruit", KEYS[5]: "tool", KEYS[6]: None, KEYS[7]: "tool",
    }  # fmt: skip
    assert sum(labels.counts.values()) == len(found)
    assert labels.by_people


def test_a_file_of_answers(tmp_path: Path) -> None:
    """Its rows are learned, but for those held out: always the same ones, none of them in both."""
    world = make(tmp_path, finetune={"labels": {"path": "labels.parquet"}, "holdout": 0.3})
    write(world.job.folder / "labels.parquet", answers(KEYS))
    found, again = gathered(world), gathered(world)
    assert found == again
    assert len(found.learned) + len(found.held) == ROWS
    assert not set(found.learned_keys) & set(found.held_keys)
    assert found.held_from == "labels that it does not learn"
    assert {row.answer for row in found.learned} == {(0,), (1,)}
    assert all(row.candidates == ((0,), (1,)) and row.lengths == (1, 1) for row in found.held)
    assert len(found.held) + len(found.further) == min(50, ROWS)
    assert found.digest == again.digest


def test_golden_rows_are_what_it_is_held_against(tmp_path: Path) -> None:
    """None of them is learned, and all labels are."""
    sections = {"finetune": {"labels": {"path": "labels.parquet"}}, "eval": {"golden": {"path": "golden.parquet"}}}
    world = make(tmp_path, **sections)
    write(world.job.folder / "labels.parquet", answers(KEYS[:40]))
    write(world.job.folder / "golden.parquet", answers(KEYS[40:]))
    found = gathered(world)
    assert (len(found.learned), len(found.held), found.held_from) == (40, 20, "golden rows")


@pytest.mark.parametrize("section", ["eval", "gate"])
def test_labels_that_meet_golden_rows_are_refused(tmp_path: Path, section: str) -> None:
    """The rows are named, whichever section names the golden file."""
    sections = {section: {"golden": {"path": "golden.parquet"}}, "finetune": {"labels": {"path": "labels.parquet"}}}
    world = make(tmp_path, **sections)
    write(world.job.folder / "labels.parquet", answers(KEYS[:40]))
    write(world.job.folder / "golden.parquet", answers(KEYS[38:]))
    with refused(
        InputError,
        "2 labels of shop (labels.parquet) are on golden rows",
        KEYS[38],
        KEYS[39],
        "take these rows out of golden.parquet or out of labels.parquet.",
    ):
        gathered(world)


def test_golden_rows_that_people_judged_name_a_command(tmp_path: Path) -> None:
    """What was imported stands in no file that could be edited: the sentence says how to be rid of it."""
    world = make(tmp_path, eval={"golden": {"path": "golden.parquet"}})
    write(world.job.folder / "golden.parquet", answers(KEYS[30:]))
    world.take_in({"text": KEYS[:31], "prediction": [kind(text) for text in KEYS[:31]]})
    command = f"batchinfer forget shop 'text={KEYS[30]}'"
    with refused(InputError, "1 label of shop (imports and reviews) is on golden rows", command):
        gathered(world)


def test_a_prompt_of_a_golden_row_is_one_too(tmp_path: Path) -> None:
    """A row of another key that asks the same question would tell the answer."""
    world = make(
        tmp_path, input={"path": "queries.parquet", "key": ["id"]}, finetune={"labels": {"path": "labels.parquet"}},
        eval={"golden": {"path": "golden.parquet"}},
    )  # fmt: skip
    world.rows({"id": list(range(ROWS)), "text": [*KEYS[:-1], KEYS[0]]})
    write(world.job.folder / "labels.parquet", {"id": list(range(40)), "answer": [kind(text) for text in KEYS[:40]]})
    write(world.job.folder / "golden.parquet", {"id": [ROWS - 1], "answer": ["fruit"]})
    with refused(InputError, "1 label of shop", "id=0"):
        gathered(world)


def test_another_job_teaches(tmp_path: Path) -> None:
    """What it serves is learned, but for golden rows, which are left out and counted."""
    teacher = make(tmp_path / "teacher", finetune=None)
    teacher.answer(lambda row: [-0.1, -2.4] if kind(row["text"]) == "fruit" else [-2.4, -0.1])
    teacher.publish()
    sections = {"finetune": {"labels": {"job": "large"}}, "eval": {"golden": {"path": "golden.parquet"}}}
    world = make(tmp_path, **sections)
    write(world.job.folder / "golden.parquet", answers(KEYS[40:]))
    with refused(NotFound, "has no job large"):
        gathered(world)
    teacher.data.folder.rename(world.data.root / "large")
    found = gathered(world)
    assert (len(found.learned), len(found.held), dict(found.left_out)) == (40, 20, {"of golden rows": 20})
    assert (found.labels.source, found.labels.by_people) == ("large, version 1", False)
    assert JobData(world.data.root, "large").is_known


def test_a_job_of_another_key_teaches_nothing(tmp_path: Path) -> None:
    """Its rows could not be told from one another."""
    teacher = make(
        tmp_path / "teacher",
        finetune=None,
        input={"path": "queries.parquet", "key": ["text"], "normalize": ["casefold"]},
    )
    teacher.answer(says)
    teacher.publish()
    world = make(tmp_path, finetune={"labels": {"job": "large"}})
    teacher.data.folder.rename(world.data.root / "large")
    with refused(InputError, "the same input.normalize"):
        gathered(world)


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    """Labels of other keys, and rows too long for the model's window."""
    world = make(tmp_path, finetune={"labels": {"path": "labels.parquet"}})
    world.rows({"text": [*KEYS[:-1], "pear " * 40]})
    write(world.job.folder / "labels.parquet", answers([*KEYS, "pear " * 40]))
    assert dict(gathered(world, window=20).left_out) == {
        "of keys that the list does not have": 1, "that do not fit the model's window": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "error", "said"),
    [
        (KEYS[:20], TooFewRows, "at least 20 and 10 are wanted"),
        (KEYS, UsageError, "All labels of shop say fruit"),
    ],
    ids=["too few rows", "one class only"],
)
def test_what_nothing_can_be_learned_of(
    tmp_path: Path, texts: list[str], error: type[BatchinferError], said: str
) -> None:
    """A sentence says what is wanted."""
    world = make(tmp_path, finetune={"labels": {"path": "labels.parquet"}, "holdout": 0.35})
    write(world.job.folder / "labels.parquet", {"text": texts, "answer": ["fruit"] * len(texts)})
    with refused(error, said):
        gathered(world)


def test_no_labels_at_all(tmp_path: Path) -> None:
    """A job that nobody reviewed has none."""
    with refused(TooFewRows, "shop has 0 labels to learn (imports and reviews)"):
        gathered(make(tmp_path))


def test_an_answer_that_is_written_has_its_end(tmp_path: Path) -> None:
    """In a job without choices the model learns the whole answer as it would write it, and where it ends."""

    class Ending(PretendTokenizer):
        def end_token(self, *, chat: bool) -> int:
            return 99

    world = make(
        tmp_path, output={"type": "json", "schema": {"type": "object", "properties": {"kind": {"type": "string"}}}},
        finetune={"labels": {"path": "labels.parquet"}},
    )  # fmt: skip
    texts = {"text": KEYS, "answer": [f'{{ "kind": "{kind(text)}" }}' for text in KEYS[:-1]] + ['["no object"]']}
    write(world.job.folder / "labels.parquet", texts)
    assert labels_of(world).answers[next(iter(labels_of(world).answers))] == '{"kind":"fruit"}'
    spec, tokenizer = world.job.spec.finetune, Ending()
    assert spec is not None
    with world.prepared() as prepared:
        assert prepared.question is not None
        found = gather(prepared, spec, PromptMaker(world.job, prepared.question, tokenizer), tokenizer, None)
    assert {row.answer for row in found.learned} == {(0, 99)}
    assert {(row.candidates, row.right) for row in found.held} == {(((0, 99),), 0)}
    assert dict(found.left_out) == {"that the model could never write": 1}
