"""Reviews as spreadsheets save them: what they retype is recognised, and what a person changed is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchinfer.core.output import OutputFile
from batchinfer.errors import InputError
from batchinfer.planning.prepare import Options
from batchinfer.review import export, ingest
from batchinfer.review.retyped import is_retyped
from tests.factories import LENIENT, World, model_job

SAME = [
    ("true", "TRUE"), ("False", "FALSE"), ("true", "WAHR"), ("false", "FAUX"),
    ("007", "7"), ("1.50", "1.5"), ("1.5", "1,5"), ("1e5", "1.00E+05"),
    ("12345678901234567", "1.23457E+16"),
    ("12345678901234567", "12345678901234600"), ("+4", "4"), ("50%", "0.5"), ("50%", "50%"), (".5", "0.5"),
    ("2024-01-31", "31.01.2024"), ("2024-01-31", "1/31/2024"),
    ("2024-01-31", "31/01/24"), ("1-2", "02. Jan"),
    ("1/2", "2-Jan"), ("3-4", "Apr 3"),
    ("Mar 2024", "Mar-24"), ("2024-01-31T12:30:00Z", "31.01.2024 12:30"), ("2024-01-31 15:30", "1/31/2024 3:30 PM"),
    ("9:05", "09:05:00"), ("2024-01-31", "45322"), ("2024-01-31", "43860"), ("31.01.2024", "45322"), ("2024-01-31 12:00", "45322.5"),
    ("2024-01-31T12:30:00Z", "45322,5208333333"), ("9:05", "0.378472222222222"), ("1-2", "45293"), ("Mar 2024", "45352"),
    ("1000", "1,000"), ("1000", "1.000"), ("1000", "1'000"), ("1000", "1\u202f000"), ("1234567.5", "12,34,567.50"),
    ("-1234567.5", "-1.234.567,5"), ("1,234", "1234"), ("1000", "1 000,00"),
    ("a\r\nb", "a\nb"), ("a\rb", "a\nb"), ("x" * 40_000, "x" * 32_767), ("March 5, 2024", "05.03.2024"),
]  # fmt: skip
DIFFERENT = [
    ("true", "FALSE"), ("true", "1"), ("yes", "TRUE"),
    ("007", "8"), ("1.50", "1.6"), ("1234567", "1.23E+07"), ("1234567", "1234568"),
    ("5", "05 apples"), ("1000", "1,00"), ("1000", "10,00"), ("1000", "1,0000"), ("1000", "1,001"), ("1000000", "1.000,000"),
    ("2024-01-31", "30.01.2024"), ("2024-01-31", "2023-01-31"), ("1-2", "3-Jan"), ("9:05", "9:06"), ("Mar 2024", "Apr-24"), ("a\nb", "a b"),
    ("2024-01-31", "45321"), ("2024-01-31", "45322.5"), ("2024-01-31 12:00", "45322"), ("9:05", "45322.378472222222222"),
    ("9:05", "0.38"), ("2024-01-31", "99999999999"), ("2024-01-31", "-5"), ("2024", "45322"),
    ("x" * 40_000, "x" * 100), ("", "0"), ("abc", "ABC"), ("2024-01-31 12:30", "31.01.2024 12:31"), ("12", ""), ("0", "FALSE"),
]  # fmt: skip


@pytest.mark.parametrize(("original", "cell"), SAME)
def test_what_spreadsheets_make_of_a_text_is_recognised(original: str, cell: str) -> None:
    """Booleans, numbers, dates, times and line ends are what they were, however they are written."""
    assert is_retyped(original, cell)


@pytest.mark.parametrize(("original", "cell"), DIFFERENT)
def test_other_texts_are_changes(original: str, cell: str) -> None:
    """Another value is one that a person gave."""
    assert not is_retyped(original, cell)


def judged(world: World, encoding: str, delimiter: str, **changed: str) -> ingest.Ingested:
    """The review, each row accepted, its cells changed, as a spreadsheet saves it."""
    export.export_review(world.job, world.data, Options(), OutputFile.of(world.review_path), {})
    [names, *rows] = [line.split(",") for line in world.review_path.read_text(encoding="utf-8-sig").splitlines()]
    for row in rows:
        row[names.index("verdict")] = "Accept"
        for name, cell in changed.items():
            row[names.index(name)] = cell
    lines = [[f" {name.title()}" for name in names] + ["", ""], *([*row, "", ""] for row in rows)]
    text = "\r\n".join(delimiter.join(line) for line in lines)
    world.review_path.write_bytes(text.encode(encoding))
    assert ingest.is_review(world.review_path, world.job.spec)
    return ingest.import_review(world.job, world.data, world.review_path, "ann", Options())


def asked(folder: Path, key: str, answer: str) -> World:
    """A job of one row that the model answered."""
    world = model_job(folder, {"id": [key], "text": ["t"]}, gate=LENIENT)
    world.answer(lambda row: answer)
    return world


@pytest.mark.parametrize(
    ("encoding", "delimiter"),
    [("utf-8", ","), ("utf-8-sig", ";"), ("utf-8-sig", "\t"), ("utf-16", "\t"), ("utf-16", ";")],
)
def test_a_review_is_read_as_spreadsheets_save_it(tmp_path: Path, encoding: str, delimiter: str) -> None:
    """Separators, encodings, empty columns and the header's case do not matter; nor do retyped keys and values."""
    world = asked(tmp_path, "007", "true")
    assert judged(world, encoding, delimiter, id="7", value="TRUE").accepted == 1
    with world.store.open() as db:
        assert db.execute("SELECT query, value FROM imports").fetchall() == [('{"id": "007"}', '"true"')]


@pytest.mark.parametrize("changed", [{"value": "FALSE"}, {"id": "8"}, {"id": "7", "value": "maybe"}])
def test_what_a_person_changed_is_refused(tmp_path: Path, changed: dict[str, str]) -> None:
    """One cell that means something else is enough, whatever the others are."""
    with pytest.raises(InputError, match="line 2: the key or the value was changed"):
        judged(asked(tmp_path, "007", "true"), "utf-8-sig", ";", **changed)
