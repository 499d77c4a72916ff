"""Values of every kind of column, for tests of properties."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from batchinfer.core import keys
from batchinfer.core.columns import Kind

texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.text("\x00:;0123456789sntfbdij\"'", max_size=12)
json_texts = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
).map(keys.canonical_json)
VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    "string": texts,
    "integer": st.integers(-(2**63), 2**63 - 1),
    "number": st.floats(allow_nan=False)
    | st.just(float("nan")),  # NaNs that differ in their bits are all "nan" in a text
    "boolean": st.booleans(),
    "date": st.dates(),
    "timestamp": st.datetimes().map(lambda moment: moment.replace(fold=0)),
    "json": json_texts,
}
