"""What a signal's handler raised, where DuckDB lost it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from batchinfer.core.database import add_text_function, scratch_database
from batchinfer.core.signals import meant
from batchinfer.errors import StoreError
from tests.tiny import press


def test_ctrl_c_while_duckdb_works(tmp_path: Path) -> None:
    """It is Ctrl-C that ends the work, and not the error that DuckDB raises in its place."""
    with pytest.raises(KeyboardInterrupt), scratch_database(tmp_path):
        raise RuntimeError("Query interrupted")


@pytest.fixture
def _heeds_ctrl_c() -> Iterator[None]:
    """A shell may have it ignored by what runs in its background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heeds_ctrl_c")
def test_ctrl_c_in_a_function_that_duckdb_calls(tmp_path: Path) -> None:
    """The same within code of ours that a query calls; what else goes wrong there is an error as ever."""

    def pressed(texts: pa.ChunkedArray) -> pa.Array:
        press(signal.SIGINT)()
        return texts.combine_chunks()

    def broken(texts: pa.ChunkedArray) -> pa.Array:
        raise ValueError(texts)

    add = "SELECT {}(range::VARCHAR) FROM range(3)".format
    with pytest.raises(KeyboardInterrupt), scratch_database(tmp_path) as db:  # noqa: PT012
        add_text_function(db, "pressed_for_a_test", pressed)
        db.execute(add("pressed_for_a_test"))
    with pytest.raises(StoreError, match="ValueError"), scratch_database(tmp_path) as db:  # noqa: PT012
        add_text_function(db, "broken_for_a_test", broken)
        db.execute(add("broken_for_a_test"))


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    """An error that is not DuckDB's passes as it is."""
    error = RuntimeError("no")
    assert meant(error) is error
    with pytest.raises(RuntimeError) as raised, scratch_database(tmp_path):
        raise error
    assert raised.value is error
