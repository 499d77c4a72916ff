"""Review files with anything in them: each is imported, or refused in a sentence, and nothing else."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.errors import BatchinferError
from batchinfer.planning.prepare import Options
from batchinfer.review import ingest
from tests.factories import World
from tests.fuzz import anything
from tests.review.lists import Make, echo

cells = st.text(max_size=8) | st.sampled_from([
    "", "accept", "reject", "ACCEPT", "=1+1", "'=x", "\x00", "\ufeff", "a;b", '"', "\r\n", "x" * 2000,
    "9" * 5000, "1e999", "ü", "TRUE", "[" * 500,
])  # fmt: skip
headers = st.sampled_from(
    ["id", "value", "verdict", "corrected", "check", "score", "reason", "author", "", "t", "ID ", "x" * 300]
)


@pytest.fixture
def world(make: Make) -> World:
    """A job whose review was written."""
    world = make()
    world.answer(echo)
    world.review()
    return world


def imported(world: World, content: bytes, name: str = "review.csv") -> str:
    """What is said of a file as a review; empty if it is imported."""
    path: Path = world.job.folder / name
    path.write_bytes(content)
    try:
        if ingest.is_review(path, world.job.spec):
            ingest.import_review(world.job, world.data, path, None, Options())
    except BatchinferError as exc:
        return str(exc)
    return ""


@anything(3)
@given(
    edits=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8), cells), max_size=4),
    delimiter=st.sampled_from(",;\t|"),
)
@pytest.mark.long
def test_any_cells_are_imported_or_refused(world: World, edits: list[tuple[int, int, str]], delimiter: str) -> None:
    """A review with anything in any of its cells, headers included, by any separator."""
    rows = list(csv.reader(io.StringIO(world.review_path.read_text(encoding="utf-8-sig"), newline="")))
    for row, column, cell in edits:
        rows[row % len(rows)][column % len(rows[0])] = cell
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows(rows)
    imported(world, text.getvalue().encode("utf-8-sig"), "edited.csv")


@anything(3)
@given(
    noise=st.binary(max_size=100),
    place=st.integers(0, 400),
    cut=st.integers(0, 50),
    name=st.sampled_from(["a.csv", "a.parquet", "a.txt"]),
)
@pytest.mark.long
def test_any_bytes_are_imported_or_refused(world: World, noise: bytes, place: int, cut: int, name: str) -> None:
    """A review that was damaged anywhere, by any bytes, whatever its name says it is."""
    whole = world.review_path.read_bytes()
    imported(world, whole[:place] + noise + whole[place + cut :], name)


@anything(3)
@given(table=st.lists(st.lists(cells, max_size=6), max_size=4), names=st.lists(headers, max_size=8))
@pytest.mark.long
def test_any_table_is_imported_or_refused(world: World, table: list[list[str]], names: list[str]) -> None:
    """Any table with any of the columns of a review."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([names, *table])
    imported(world, text.getvalue().encode(), "table.csv")
