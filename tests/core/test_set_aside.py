"""Long texts set aside while SQL works on their rows: they come back as they were, written as the line wants them."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchinfer.core.json_parts import PART, json_parts
from batchinfer.core.long_texts import LONG
from batchinfer.core.set_aside import SetAside

LENGTHS = st.sampled_from([1, LONG])
TEXTS = st.builds(lambda part, times: part * times, st.text(max_size=6), LENGTHS)


@settings(max_examples=40)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3))
def test_json_that_sql_makes_has_the_texts_themselves(rows: list[tuple[str, str]]) -> None:
    """Texts and JSON values in an object that SQL made are those of the rows, be they long or full of signs."""
    aside = SetAside()
    batch = pa.record_batch(
        [[text for text, _ in rows], [json.dumps({"a": [text, 1.5]}) for _, text in rows], list(range(len(rows)))],
        names=["text", "value", "n"],
    )
    with duckdb.connect() as db:
        db.register("batch", aside.shortened(batch, ["value"]))
        made = db.execute("SELECT json_object('t', text, 'v', value::JSON, 'n', n)::VARCHAR FROM batch").fetchall()
    assert max(len(line) for (line,) in made) < 8 * LONG
    found = [json.loads(aside.whole(line)) for (line,) in made]
    assert found == [{"t": text, "v": {"a": [other, 1.5]}, "n": n} for n, (text, other) in enumerate(rows)]


def test_the_texts_of_rows_before_are_forgotten() -> None:
    """No more is held than the rows at work have."""
    aside = SetAside()
    for text, holds in (("x" * LONG * 2, True), ("short", False)):
        aside.shortened(pa.record_batch([[text]], names=["text"]))
        assert aside.any == holds


@pytest.mark.parametrize("place", [(), ("names",), ("a", "names")])
def test_a_long_list_comes_in_parts(place: tuple[str, ...]) -> None:
    """Each item comes once, in one of the parts, none of which is long; other lists are empty, plain values always there."""
    items: list[Any] = [*[f"name {number}" for number in range(30_000)], "name 1", 7, None, True, 1, "x" * 3 * LONG]
    value: Any = items
    for name in reversed(place):
        value = {name: value, "other": items, "id": "q"}
    aside = SetAside()
    batch = pa.record_batch([["k"], [json.dumps(value)]], names=["key", "value"])
    rows = aside.in_parts(batch, {"value": [place]})
    parts = rows.column("value").to_pylist()
    assert (len(parts) > 4, max(map(len, parts)) < 2 * PART) == (True, True)
    assert rows.column("key").to_pylist() == ["k"] * len(parts)
    found = []
    for part in map(json.loads, parts):
        held = part
        for name in place:
            assert (held["other"], held["id"]) == ([], "q")
            held = held[name]
        found += held
    texts = pa.record_batch([[item for item in found if isinstance(item, str)]], names=["item"])
    back = [item for batch in aside.put_back(texts) for item in batch.column(0).to_pylist()]
    wanted = {item for item in items if isinstance(item, str)}
    assert (set(back), len(back)) == (wanted, len(wanted))
    assert sum(item is True for item in found) == sum(type(item) is int and item == 1 for item in found) == 1
    assert aside.in_parts(batch, {"value": [place]}, most=1).num_rows == 1


def test_parts_of_several_columns_stand_side_by_side() -> None:
    """Where one column has more parts than another, the last part of the other is there again; a null stays one."""
    many, few = json.dumps([f"{number} {'x' * 90}" for number in range(2000)]), json.dumps(["y" * 50] * 100)
    batch = pa.record_batch([[many, None, many], [few, few, None]], names=["a", "b"], schema=None)
    rows = SetAside().in_parts(batch, {"a": [()], "b": [()]})
    pairs = list(zip(rows.column("a").to_pylist(), rows.column("b").to_pylist(), strict=True))
    assert {second for first, second in pairs if first is not None and second is not None} == {json.dumps(["y" * 50])}
    assert len([1 for first, _ in pairs if first is None]) == 1
    assert list(json_parts(few, [()], lambda *_: None)) == [json.dumps(["y" * 50])]
