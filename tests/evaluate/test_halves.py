"""Golden rows in two parts."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from batchinfer.core.keys import short
from batchinfer.evaluate.halves import split_rows


def units(count: int) -> list[bytes]:
    return [short(str(number).encode()) for number in range(count)]


def test_each_answer_is_parted_alike() -> None:
    """Of 240 rows half are to choose on, and half of each answer, whatever the order of the file."""
    answers = ["Positive" if number % 3 else "Negative" for number in range(240)]
    halves = split_rows(units(240), answers, 0.5, {})
    assert Counter(zip(answers, halves.values(), strict=True)) == {
        ("Positive", True): 80, ("Positive", False): 80, ("Negative", True): 40, ("Negative", False): 40,
    }  # fmt: skip
    turned = split_rows(units(240)[::-1], answers[::-1], 0.5, {})
    assert turned == halves


@given(st.integers(2, 60), st.integers(1, 30), st.floats(0.1, 0.9))
def test_old_rows_stay_where_they_are(old: int, new: int, share: float) -> None:
    """More rows change no side, and the share is kept to within a row."""
    before = split_rows(units(old), ["a"] * old, share, {})
    after = split_rows(units(old + new), ["a"] * (old + new), share, before)
    assert before.items() <= after.items()
    assert abs(sum(after.values()) - share * (old + new)) <= 1


def test_rows_of_one_source_are_on_one_side() -> None:
    """A source row's rows are never parted."""
    source = [unit for unit in units(20) for _ in range(5)]
    halves = split_rows(source, ["a"] * 100, 0.5, {})
    assert len(halves) == 20
    assert sum(halves.values()) == 10
