"""Arrow columns become columns of the kinds of keys; a value that cannot is a fault of its row."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from batchinfer.core.columns import Kind
from batchinfer.errors import InputError
from batchinfer.inputs.convert import ARROW_TYPES, Faults, convert, json_value, kind_of


def test_kinds_of_dictionaries_are_those_of_their_values() -> None:
    """A dictionary-encoded column counts as what its dictionary holds."""
    assert kind_of(pa.field("x", pa.dictionary(pa.int8(), pa.float64()))) == "number"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.large_string(), "string"), (pa.binary(), "string"), (pa.decimal128(9, 2), "string"), (pa.uint8(), "integer"),
        (pa.float16(), "number"), (pa.bool_(), "boolean"), (pa.date64(), "date"), (pa.timestamp("ns", "UTC"), "timestamp"),
        (pa.list_(pa.int8()), "json"), (pa.struct([("a", pa.int8())]), "json"),
    ],
)  # fmt: skip
def test_every_type_has_a_kind(kind: pa.DataType, expected: Kind) -> None:
    """However Arrow stores a column, it counts as one of the few kinds of keys."""
    assert kind_of(pa.field("x", kind)) == expected


@pytest.mark.parametrize("kind", [pa.null(), pa.time32("s"), pa.duration("s"), pa.month_day_nano_interval()])
def test_a_type_without_a_kind_is_refused(kind: pa.DataType) -> None:
    """A column that no prompt and no key can hold is named, with its type and what to do."""
    with pytest.raises(
        InputError, match=re.escape(f"The column x is {kind}, which cannot be used: convert it to text")
    ):
        kind_of(pa.field("x", kind))


def converted(values: pa.Array, kind: Kind) -> tuple[list[Any], dict[int, tuple[str, str]]]:
    """What comes of a column x of this kind, and the faults of its rows."""
    faults = Faults(len(values))
    column = convert(values, kind, ARROW_TYPES[kind], "x", faults)
    assert column.type == ARROW_TYPES[kind]
    return column.to_pylist(), faults.found


@pytest.mark.parametrize(
    ("values", "kind", "expected", "bad"),
    [
        pytest.param(pa.array(["1", "x", None, "-7"]), "integer", [1, None, None, -7], [1], id="texts as integers"),
        pytest.param(pa.array([1.0, 1.5]), "integer", [1, None], [1], id="no whole number"),
        pytest.param(pa.array([2**63, 5], pa.uint64()), "integer", [None, 5], [0], id="beyond 64 bits"),
        pytest.param(pa.array(["true", "maybe"]), "boolean", [True, None], [1], id="texts as booleans"),
        pytest.param(pa.array([7, None]), "string", ["7", None], [], id="integers as texts"),
        pytest.param(pa.array(["b", "a", "b"]).dictionary_encode(), "string", ["b", "a", "b"], [], id="a dictionary"),
        pytest.param(pa.array(["2026-02-30", "2026-02-28"]), "date", [None, date(2026, 2, 28)], [0], id="no such day"),
        pytest.param(pa.array([[2, 1], None]), "json", ["[2,1]", None], [], id="nested"),
    ],
)
def test_values_are_converted_or_bad(values: pa.Array, kind: Kind, expected: list[Any], bad: list[int]) -> None:
    """A value that its kind cannot hold is null and a fault of its row alone; the others are converted."""
    column, faults = converted(values, kind)
    assert column == expected
    assert list(faults) == bad
    assert {reason for reason, _ in faults.values()} <= {"wrong_type"}


def test_a_wrong_value_is_shown_with_its_kind() -> None:
    """The fault says the column, the kind and the value."""
    _, faults = converted(pa.array(["seven"]), "integer")
    assert faults == {0: ("wrong_type", "The column x: expected an integer, got 'seven'.")}


def test_of_a_rows_faults_the_first_counts() -> None:
    """Another fault of the same row does not replace it."""
    faults = Faults(2)
    faults.add(1, "null", "The first.")
    faults.add_where(pa.array([True, True]), "wrong_type", "The second.")
    assert faults.found == {1: ("null", "The first."), 0: ("wrong_type", "The second.")}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, None), ("a", "a"), (1.5, 1.5), (True, True), (date(2026, 1, 31), "2026-01-31"), (Decimal("1.50"), "1.50")],
)
def test_a_value_as_json_can_hold_it(value: Any, expected: Any) -> None:
    """What JSON has no kind for is text."""
    assert json_value(pa.scalar(value)) == expected
