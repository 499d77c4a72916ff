"""Scratch databases: what does not fit into memory goes to the disk, and a full disk is told in a sentence."""

from __future__ import annotations

import resource
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from batchinfer.core.database import UNWRITTEN, database_file, duckdb_errors, record_batches, scratch_database
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


def test_a_file_that_cannot_be_written_is_no_full_disk(tmp_path: Path) -> None:
    """Where a checkpoint fails of another cause than a disk without room, that cause is told."""
    path = tmp_path / "file.duckdb"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with duckdb.connect() as db:
        db.execute(f"ATTACH '{path}' AS file")
        db.execute("CREATE TABLE file.t AS SELECT 1 AS number")
        db.execute("CHECKPOINT file")
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, before[1]))
        try:
            db.execute("INSERT INTO file.t SELECT range FROM range(20_000)")
            with pytest.raises(StoreError) as told, duckdb_errors(path):
                db.execute("DETACH file")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert UNWRITTEN in str(told.value.__cause__)
    assert str(told.value) == f'{path} cannot be written: Could not write file "{path}": File too large'


def test_one_scratch_database_finds_nothing_of_another(tmp_path: Path) -> None:
    """Tables, views of Arrow data and an attached file go with their database, also where a query is left half read."""
    with scratch_database(tmp_path) as first:
        first.execute("CREATE TABLE t AS SELECT i FROM range(100_000) r(i)")
        first.register("seen", pa.table({"a": [1]}))
        left = record_batches(first, "FROM t", 100)
        next(iter(left.__enter__()))
    with scratch_database(tmp_path) as second:
        assert second is first  # the instance was kept
        for name in ("t", "seen"):
            with pytest.raises(duckdb.CatalogException):
                second.execute(f"FROM {name}")
    left.__exit__(None, None, None)


def test_an_instance_that_is_not_to_be_kept_is_closed(tmp_path: Path) -> None:
    """Only then does it give its memory back."""
    with scratch_database(tmp_path, reuse=False) as first:
        first.execute("CREATE TABLE t AS SELECT 1 AS i")
    with pytest.raises(duckdb.ConnectionException):
        first.execute("SELECT 1")
    with scratch_database(tmp_path) as second:
        assert second is not first


def test_an_instance_in_which_something_failed_is_not_used_again(tmp_path: Path) -> None:
    """What an error left in it is unknown."""
    with pytest.raises(StoreError), scratch_database(tmp_path) as first:
        first.execute("FROM nowhere")
    with scratch_database(tmp_path) as second:
        assert second is not first


def test_a_file_is_let_go_of_after_an_error(tmp_path: Path) -> None:
    """Another instance can write to it at once."""
    path = tmp_path / "file.duckdb"
    with pytest.raises(duckdb.Error), database_file(path, read_only=False) as db:
        db.execute("FROM nowhere")
    with duckdb.connect(path) as other:
        other.execute("CREATE TABLE t (i INTEGER)")
    with database_file(path, read_only=True) as db:
        assert db.execute("SELECT count(*) FROM t").fetchall() == [(0,)]
