"""Values out of text, by the kind of their column."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.core import keys
from batchinfer.core.columns import Column, Kind, typed
from batchinfer.errors import UsageError
from tests.core.values import VALUES


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("12", "integer", 12),
        ("-0.5", "number", -0.5),
        ("TRUE", "boolean", True),
        ("false", "boolean", False),
        ("2026-01-31", "date", date(2026, 1, 31)),
        ("2026-01-31T07:00:00Z", "timestamp", datetime(2026, 1, 31, 7, tzinfo=UTC)),
        ('{"a": [1]}', "json", {"a": [1]}),
        (" 12 ", "string", " 12 "),
        ("", "string", ""),
    ],
)
def test_a_text_becomes_a_value_of_its_column(text: str, kind: Kind, value: Any) -> None:
    """COLUMN=VALUE is read as the column's kind, and a text is taken as it is."""
    found = typed(text, Column("a", kind))
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1.5", "integer"), ("twelve", "integer"), ("", "integer"), ("1,5", "number"), ("yes", "boolean"), ("1", "boolean"),
        ("31.1.2026", "date"), ("2026-02-30", "date"), ("noon", "timestamp"), ("{a: 1}", "json"), ("\udcff", "string"),
    ],
)  # fmt: skip
def test_a_text_that_is_no_value_of_its_column_is_refused(text: str, kind: Kind) -> None:
    """The sentence names the column, what was said, and the kind that the column holds."""
    with pytest.raises(UsageError) as caught:
        typed(text, Column("size", kind))
    said = text.encode(errors="replace").decode()  # a sentence that can be written anywhere
    assert str(caught.value) == f"size={said} is not a valid {kind}."


@given(st.sampled_from(["string", "integer", "number", "boolean", "date", "timestamp"]).flatmap(
    lambda kind: st.tuples(st.just(kind), VALUES[kind])  # type: ignore[index]
))  # fmt: skip
def test_a_value_survives_being_written_as_a_text(value: tuple[Kind, Any]) -> None:
    """A key value written as Python writes it is looked up under the same key."""
    kind, held = value
    text = held.isoformat() if kind in ("date", "timestamp") else str(held)
    assert keys.encode(typed(text, Column("a", kind)), kind) == keys.encode(held, kind)
