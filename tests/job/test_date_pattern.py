"""Dates in the paths of lists."""

from __future__ import annotations

from datetime import date
from fnmatch import fnmatchcase

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from batchinfer.job.date_pattern import DatePattern

DAY = date(2026, 3, 9)


def pattern(path: str) -> DatePattern:
    found = DatePattern.of(path)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("path", "at"),
    [
        ("exports/{date:%Y-%m-%d}/*.parquet", "exports/2026-03-09/*.parquet"),
        ("q_{date:%Y%m%d}.csv", "q_20260309.csv"),
        ("{date:%Y/%m/%d}", "2026/03/09"),
        ("day-{date:%j-%Y}", "day-068-2026"),
        ("100% {date:%y.%m.%d}[x]", "100% 26.03.09[x]"),
    ],
)
def test_a_path_has_the_date(path: str, at: str) -> None:
    """Whatever stands around it, and in it."""
    assert pattern(path).at(DAY) == at


@pytest.mark.parametrize("path", ["queries.parquet", "{dated}", "%Y-%m-%d", "", "{dates:x}"])
def test_a_path_may_have_none(path: str) -> None:
    """Other braces and per cent signs are names."""
    assert DatePattern.of(path) is None


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("{date:%Y-%m-%d}/{date:%Y-%m-%d}", "has 2 dates, and can have one"),
        ("{date}", "names no day"), ("{date:}", "names no day"), ("{date:%H}", "names no day"), ("{date:%Y %Y}", "names no day"),
        ("{date:%d}", "names no day"), ("{date:%Y-%m-%}", "names no day"), ("{date:%Y", "is not closed"), ("{date:%Y%B}", "names no day"),
    ],
)  # fmt: skip
def test_what_names_no_day_is_refused(path: str, sentence: str) -> None:
    """With what to write."""
    with pytest.raises(ValueError, match=rf"{sentence}.*: write one such as \{{date:%Y-%m-%d\}}"):
        DatePattern.of(path)


FORMS = st.sampled_from(["%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%y%m%d", "%d.%m.%Y", "%Y_%j"])
AROUND = st.text("ab.*?/[]-", max_size=6)


@given(FORMS, st.dates(date(2000, 1, 1), date(2068, 12, 31)), st.text("ab.-/", max_size=6), st.text("ab.-", max_size=6))
def test_a_date_is_read_back(form: str, day: date, before: str, after: str) -> None:
    """From the path that it is put into, also of files below."""
    made = pattern(f"{before}{{date:{form}}}{after}")
    assert made.day_of(made.at(day)) == day
    assert made.day_of(f"{made.at(day)}/part-0.parquet") == day


@pytest.mark.parametrize("path", ["x-2026-02-30", "x-2026-13-01", "x-0000-01-01", "y-2026-01-01", "x-2026-01-01z"])
def test_digits_that_are_no_date(path: str) -> None:
    """Nor other paths."""
    assert pattern("x-{date:%Y-%m-%d}").day_of(path) is None


def test_stars_around_a_date() -> None:
    """They stand for any name."""
    made = pattern("*/sales_{date:%Y%m%d}_v?[0-9].parquet")
    assert made.day_of("eu/sales_20260309_v12.parquet") == DAY
    assert made.day_of("eu/x/sales_20260309_v12.parquet") is None
    assert pattern("**/{date:%Y%m%d}").day_of("a/b/20260309") == DAY


@example("[?--]", "-")
@given(st.text("[]!x^-\\*?&", max_size=8).filter(lambda glob: "**" not in glob), st.text("[]!x^-\\&y", max_size=3))
def test_signs_of_globs_are_read_as_the_files_are_found(before: str, name: str) -> None:
    """A ] that comes first in a set is one of its characters, and so is a ^."""
    assume("[" not in before or "]" in before[before.rindex("[") + 2 :])  # of a set that the date would be in
    found = pattern(f"{before}{{date:%Y}}").day_of(f"{name}2026") is not None
    assert found == fnmatchcase(f"{name}2026", f"{before}2026")
