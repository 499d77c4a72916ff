"""Scratch databases: what does not fit into memory goes to the disk, and a full disk is told in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchinfer.core.database import scratch_database
from batchinfer.errors import StoreError


def in_scratch(folder: Path, *statements: str) -> None:
    """Does these in a scratch database that has little memory."""
    with scratch_database(folder) as db:
        for statement in ("SET memory_limit = '20MB'", *statements):
            db.execute(statement)
        assert any((folder / "spill").iterdir())


def test_scratch_tables_that_find_no_room(tmp_path: Path) -> None:
    """Intermediate tables beyond the memory go to the disk; where that is full, a sentence says so."""
    table = "CREATE TABLE t AS SELECT sha256(i::VARCHAR) AS text FROM range(1_000_000) r(i)"
    in_scratch(tmp_path, table)
    with pytest.raises(StoreError, match=r"the disk is full\. Free space"):
        in_scratch(tmp_path, "SET max_temp_directory_size = '5MB'", table)
