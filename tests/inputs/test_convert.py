"""Arrow columns become columns of the kinds of keys; a value that cannot is a fault of its row."""

from __future__ import annotations

import pyarrow as pa

from batchinfer.inputs.convert import kind_of


def test_kinds_of_dictionaries_are_those_of_their_values() -> None:
    """A dictionary-encoded column counts as what its dictionary holds."""
    assert kind_of(pa.field("x", pa.dictionary(pa.int8(), pa.float64()))) == "number"
