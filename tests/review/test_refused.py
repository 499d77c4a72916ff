"""Reviews that are refused, as a whole and with the lines of what is wrong."""

from __future__ import annotations

import csv
from typing import Any

import pytest

from batchinfer.errors import InputError
from batchinfer.planning.prepare import Options
from batchinfer.review import ingest
from tests.factories import World
from tests.review.lists import CHECK, CHOICE, NAMES, Make, echo, scores, stored


def refused(world: World, rows: list[dict[str, str]]) -> str:
    with pytest.raises(InputError) as raised:
        world.judge(rows)
    assert stored(world) == []
    head = f"{world.review_path} is refused, and nothing was imported:\n  "
    assert str(raised.value).startswith(head)
    return str(raised.value).removeprefix(head)


CHANGED = (
    "the key or the value was changed since the review was made: put these cells back as batchinfer review wrote them"
)


@pytest.mark.parametrize("column", ["id", "value", "check"])
def test_a_row_that_was_altered_is_refused(make: Make, column: str) -> None:
    """A key, value or check that is not what was written is noticed, with its line: the header is line 1."""
    world = make()
    world.answer(echo)
    rows = [row | {"verdict": "accept"} for row in world.review()]
    rows[1][column] = "zzz"
    assert refused(world, rows) == f"line 3: {CHANGED}"


def test_two_verdicts_for_one_value_are_refused(make: Make) -> None:
    """One value cannot be judged twice in a file, not even alike."""
    world = make()
    world.answer(echo)
    rows = [row | {"verdict": "accept"} for row in world.review()]
    assert refused(world, [*rows, rows[0] | {"verdict": "reject"}]) == (
        "line 2: two verdicts for one value of id=a, here and in line 5"
    )


def test_a_term_that_is_rejected_and_corrected_to_is_refused(make: Make) -> None:
    """In a checking job a correction accepts the new term, which another row may not reject."""
    world = make({"thing": ["mRNA"] * 2, "term": ["jabs", "jab"]}, **CHECK)
    world.answer(lambda row: scores(0.9))
    rows = {row["term"]: row for row in world.review()}
    said = refused(world, [rows["jabs"] | {"corrected": "jab"}, rows["jab"] | {"verdict": "reject"}])
    assert said == "line 2: two verdicts for one value of thing=mRNA, term=jab, here and in line 3"


@pytest.mark.long
def test_two_corrections_of_a_key_are_refused(make: Make) -> None:
    """Rows of two reviews put together may judge two values of a key, but not give it two others, nor what they reject."""
    world = make({"id": ["a"], "text": ["x"]})
    world.answer(echo)
    [first] = world.review()
    world.answer(lambda row: "news", refresh=True)
    [second] = world.review()
    assert refused(world, [first | {"corrected": "one"}, second | {"corrected": "two"}]) == (
        "line 2: two corrected values of id=a, here and in line 3"
    )
    assert refused(world, [first | {"verdict": "reject"}, second | {"corrected": "about x"}]) == (
        "line 3: the corrected value of id=a is rejected in line 2"
    )
    assert world.judge([first | {"verdict": "reject"}, second | {"verdict": "reject"}]).rejected == 2


def test_a_review_of_another_job_is_refused(make: Make) -> None:
    """A file that was made for another job is refused, though nothing in it is judged."""
    world = make()
    world.answer(echo)
    rows = [row | {"job": "store"} for row in world.review()]
    assert refused(world, rows) == "\n  ".join(
        f"line {n}: it was made for the job store, not for shop" for n in (2, 3, 4)
    )
    elsewhere = [{("sku" if name == "id" else name): cell for name, cell in row.items()} for row in rows]
    assert refused(world, elsewhere).startswith("line 2: it was made for the job store")  # and not that a column lacks


WRONG = [
    pytest.param({}, {"verdict": "ok"}, "the verdict is ok, but should be accept, reject or correct", id="unknown word"),
    pytest.param({}, {"verdict": "correct"}, "the verdict is correct, but there is no corrected value", id="no value"),
    pytest.param(
        {}, {"verdict": "reject", "corrected": "x"},
        "the verdict is reject, but there is a corrected value: say correct, or clear it", id="reject with a value",
    ),
    pytest.param({"output": CHOICE}, {"corrected": "Maybe"}, "the corrected value is Maybe, not one of Yes, No", id="choice"),
    pytest.param(
        {"output": {"type": "regex", "pattern": "[ay].*"}}, {"corrected": "7"},
        "the corrected value is '7', which does not match output.pattern", id="pattern",
    ),
    pytest.param(
        {"output": {"type": "text", "steps": ["casefold"]}}, {"corrected": "Tea"},
        'the corrected value is not as output.steps leave it: they make "tea" of it', id="steps",
    ),
    pytest.param({"output": NAMES}, {"corrected": "x"}, "the corrected value should be JSON, but is 'x'", id="no JSON"),
    pytest.param(
        {"output": NAMES}, {"corrected": '{"name": []}'},
        "the corrected value breaks the schema at the whole: 'names' is a required property", id="schema",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("sections", "marked", "said"), WRONG)
def test_a_verdict_that_cannot_be_is_refused(
    make: Make, sections: dict[str, Any], marked: dict[str, str], said: str
) -> None:
    """Unknown words, and corrected values that the job could not have given, are refused with their line."""
    world = make(**sections)
    kind = world.job.spec.output.type
    replies: dict[str, Any] = {"choice": scores(0.9), "json": '{"names": ["x"]}', "text": "about", "regex": "about"}
    world.answer(lambda row: replies[kind])
    rows = world.review()
    assert refused(world, [rows[0], rows[1] | marked]).startswith(f"line 3: {said}")


def test_an_empty_term_is_no_correction(make: Make) -> None:
    """In a checking job a corrected term is a text that is not empty."""
    world = make({"thing": ["mRNA"], "term": ["jab"]}, **CHECK)
    world.answer(lambda row: scores(0.9))
    [row] = world.review()
    assert "there is no corrected value" in refused(world, [row | {"verdict": "correct", "corrected": "  "}])


def test_many_faults_are_counted(make: Make) -> None:
    """The first several faults are named, and how many more there are."""
    world = make({"id": [f"{n:02}" for n in range(12)], "text": ["x"] * 12})
    world.answer(echo)
    said = refused(world, [row | {"verdict": "ok"} for row in world.review()])
    assert (said.count("line "), said.endswith("\n  and 7 more")) == (5, True)


def test_lines_are_those_of_the_file(make: Make) -> None:
    """A row begins at the line that an editor shows, also behind values of several lines and empty lines."""
    world = make({"id": ["a", "b"], "text": ["one\ntwo\nthree", "y"]})
    world.answer(echo)
    rows = world.review()
    with world.review_path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerow(rows[0])
        file.write("\r\n")
        writer.writerow(rows[1] | {"verdict": "ok"})
    with pytest.raises(InputError, match="line 8: the verdict is ok"):
        ingest.import_review(world.job, world.data, world.review_path, None, Options())


def test_a_file_without_its_columns_is_refused(make: Make) -> None:
    """A review that lost a column is refused with the column's name."""
    world = make()
    world.answer(echo)
    rows = [{name: cell for name, cell in row.items() if name != "value"} for row in world.review()]
    with pytest.raises(InputError, match="has no column value: make it again with batchinfer review"):
        world.judge(rows)


@pytest.mark.parametrize("cell", ["value", "corrected"])
def test_a_cell_that_nests_too_deeply_is_refused(make: Make, cell: str) -> None:
    """A hundred thousand brackets are a fault of the row, not of the program."""
    world = make(output=NAMES)
    world.answer(lambda row: '{"names": ["x"]}')
    rows = [row | {"verdict": "correct", cell: "[" * 100_000} for row in world.review()[:1]]
    assert refused(world, rows).startswith("line 2: the ")


def test_a_foreign_jobs_name_is_shortened(make: Make) -> None:
    """Whatever stands in the column job, the sentence that refuses it stays one."""
    world = make()
    world.answer(echo)
    assert len(refused(world, [world.review()[0] | {"job": "x" * 10_000}])) < 200
