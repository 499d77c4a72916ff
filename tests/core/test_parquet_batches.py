"""Rows of Parquet files in batches that are bounded in bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchinfer.core.memory import VARIABLE, batch_bytes
from batchinfer.core.parquet_batches import row_batches
from batchinfer.errors import StoreError

SIZE = 100_000
LONG = [f"{number} " + "x" * SIZE for number in range(200)]


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        (LONG, {"use_dictionary": False}),  # one page
        (LONG, {}),  # a large dictionary
        (["y" * SIZE, "z" * SIZE] * 1000, {}),  # little on disk, and much in memory
        (["short"] * 3000 + LONG[:60], {"use_dictionary": False}),
        (["short"] * 3000 + ["y" * SIZE] * 100, {"row_group_size": 500}),
        (["short", None, ""] * 5000, {"row_group_size": 10}),
    ],
)
@pytest.mark.long
def test_batches_are_bounded_whatever_wrote_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str | None], options: dict[str, Any]
) -> None:
    """No batch has much more than its bytes or more than its rows, and all rows come in order."""
    monkeypatch.setenv(VARIABLE, "32MB")
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), path, **options)
    found = list(row_batches(path, ["id", "text"], 1000))
    assert max(batch.nbytes for batch in found) <= batch_bytes() + SIZE
    assert max(batch.num_rows for batch in found) <= 1000
    assert [text for batch in found for text in batch.column("text").to_pylist()] == texts
    assert [number for batch in found for number in batch.column("id").to_pylist()] == list(range(len(texts)))


def test_small_row_groups_are_put_together(tmp_path: Path) -> None:
    """A file of many small row groups is not read in as many batches; without columns there are rows all the same."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": range(1000)}), path, row_group_size=10)
    assert [batch.num_rows for batch in row_batches(path, ["id"], 400)] == [400, 400, 200]
    assert sum(batch.num_rows for batch in row_batches(path, [], 400)) == 1000


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Arrow would, without an end."""
    os.mkfifo(tmp_path / "rows.parquet")
    with pytest.raises(StoreError, match=r"rows.parquet is no plain file"):
        list(row_batches(tmp_path / "rows.parquet", ["id"], 10))
