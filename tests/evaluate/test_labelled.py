"""Golden rows and pools: what a template needs of them, from their own file or from the job's list."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batchinfer.errors import InputError
from batchinfer.evaluate.arms import drawn, examples_of
from batchinfer.evaluate.halves import source_rows
from batchinfer.evaluate.labelled import LabelledRows, check_apart, read_labelled
from batchinfer.prompting.spec import Example
from tests.factories import World, model_job, write

TEMPLATE = "{{ text }} {{ tags }} {{ weight }} {{ at }}"
COLUMNS = ["text", "tags", "weight", "at"]


def columns(count: int, start: int = 0) -> dict[str, Any]:
    """Rows of a list with columns of many kinds."""
    numbers = range(start, start + count)
    return {
        "id": pa.array(numbers, pa.int64()),
        "text": [f"text {number}" for number in numbers],
        "tags": pa.array([[f"tag {number}", "x"] for number in numbers], pa.list_(pa.string())),
        "weight": pa.array([number / 10 for number in numbers], pa.float32()),
        "at": pa.array([datetime(2026, 1, 1 + number, tzinfo=UTC) for number in numbers], pa.timestamp("us", "UTC")),
    }


def world(folder: Path) -> World:
    """A job whose prompt shows columns of many kinds."""
    return model_job(folder, columns(9), prompt={"template": TEMPLATE})


def read(made: World, golden: dict[str, Any]) -> LabelledRows:
    write(made.job.folder / "golden.parquet", golden)
    scratch = made.job.folder / "scratch"
    scratch.mkdir(exist_ok=True)
    return read_labelled(made.job, made.data, "eval.golden.path", "golden.parquet", "equal", COLUMNS, scratch)


def test_columns_come_from_the_list(tmp_path: Path) -> None:
    """A golden file of keys and answers gets what the prompt shows, exactly as the list has it: keys of the cache are the same."""
    made = world(tmp_path)
    found = read(made, {"id": pa.array([7, 2], pa.int64()), "answer": ["a", "b"]})
    assert [(values["text"], values["tags"], values["weight"]) for values in found.values] == [
        ("text 7", ["tag 7", "x"], 0.7), ("text 2", ["tag 2", "x"], 0.2),
    ]  # fmt: skip
    assert found.answers == ("a", "b")
    with made.prepared() as whole, made.prepared(input=found.write(tmp_path / "rows.parquet")) as some:
        keys = {prompt_key for prompt_key, _ in whole.plan.todo()}
        assert len({prompt_key for prompt_key, _ in some.plan.todo()} & keys) == 2


def test_a_file_with_its_own_columns_needs_no_list(tmp_path: Path) -> None:
    """Rows that are not in the list are compared by, too, if the golden file has all that the prompt shows."""
    found = read(world(tmp_path), columns(2, start=20) | {"answer": ["a", "b"]})
    assert [query["id"] for query in found.queries] == [20, 21]
    assert len(found.take([1])) == 1


@pytest.mark.parametrize(
    ("golden", "sentence"),
    [
        ({"id": pa.array([7, 70], pa.int64()), "answer": ["a", "b"]}, "has no column text, .* does not have id=70: add the column"),
        (columns(2) | {"weight": ["1", "2"], "answer": ["a", "b"]}, "weight of .* holds string values, but the job's list has number"),
        (columns(2) | {"text": ["a", None], "answer": ["a", "b"]}, "row 2: The column text is null.* leave the row out"),
        ({"id": ["7"], "answer": ["a"]}, "id of the golden file .* holds string values"),
        (columns(2), "has no column answer"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_asked(tmp_path: Path, golden: dict[str, Any], sentence: str) -> None:
    """They are refused with the file, the row, and what to do."""
    with pytest.raises(InputError, match=sentence):
        read(world(tmp_path), golden)


def test_terms_of_one_row_are_of_one_source(tmp_path: Path) -> None:
    """In a job that explodes lists, rows that differ in the item alone come of one row; elsewhere each stands for itself."""
    made = world(tmp_path)
    golden = read(made, columns(3) | {"answer": ["a"] * 3})
    assert source_rows(made.job, golden) == golden.hashes
    queries = [{"drug": "a", "term": "x"}, {"drug": "a", "term": "y"}, {"drug": "b", "term": "x"}]
    exploded = made.changed(
        input={"job": "lists", "explode": "prediction.names", "as": "term", "key": ["drug", "term"]}
    ).job
    rows = LabelledRows(golden.path, golden.hashes, tuple(queries), golden.answers, golden.values, golden.table)
    first, second, third = source_rows(exploded, rows)
    assert first == second != third


def test_examples_meet_golden_rows_by_key_or_by_what_is_shown(tmp_path: Path) -> None:
    """A row with another key and the same text would be shown its own answer as well."""
    golden = read(world(tmp_path), columns(9) | {"answer": ["a"] * 9})
    check_apart(golden, [{"text": "another"}], "the pool")
    with pytest.raises(InputError, match="the pool has rows that are golden rows"):
        check_apart(golden, [golden.values[3]], "the pool")
    with pytest.raises(InputError, match=r"id=1; id=2; .*; and 1 more: remove them"):
        check_apart(golden, [], "the pool", golden.hashes[1:7])


def test_draws() -> None:
    """Answers take turns in a balanced draw; fewer examples are the beginning of more; each draw is another, and always the same."""
    pool = [Example(input={"text": str(number)}, output="Yes" if number % 4 else "No") for number in range(40)]
    first, again, second = drawn(pool, 1, "balanced"), drawn(pool[::-1], 1, "balanced"), drawn(pool, 2, "balanced")
    assert first == again != second
    assert len(first) == 40
    assert {example.output for example in first[:2]} == {"Yes", "No"}
    assert [example.output for example in first[:8]].count("No") == 4
    assert sum(example.output == "No" for example in drawn(pool, 1, "random")[:20]) < 10


def test_examples_are_what_a_job_file_can_hold(tmp_path: Path) -> None:
    """Times and JSON become the texts that a prompt shows."""
    golden = read(world(tmp_path), columns(1) | {"answer": ["a"]})
    [example] = examples_of(golden, COLUMNS)
    assert example.input == {"text": "text 0", "tags": ["tag 0", "x"], "weight": 0.0, "at": "2026-01-01 00:00:00+00:00"}
