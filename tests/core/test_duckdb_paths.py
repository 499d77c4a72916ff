"""Database files below folders whose names DuckDB misreads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from batchinfer.core import locks
from batchinfer.core.database import database_file, transaction
from batchinfer.core.duckdb_paths import parquet_rows
from batchinfer.errors import Busy, StoreError
from tests.killing import kill_at

COPIED, LINKED = ["a?b", "?\\", "link"], ["a\\b"]
OLD, NEW = 1, 2


@pytest.fixture(params=COPIED + LINKED)
def file(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database with one row, below a folder of such a name, or one that is reached by a link."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    (tmp_path / "far?away").mkdir()
    (tmp_path / "link").symlink_to("far?away")
    path = tmp_path / str(request.param) / "cache.duckdb"
    path.parent.mkdir(exist_ok=True)
    with database_file(path, read_only=False) as db:
        db.execute("CREATE TABLE numbers AS SELECT 1 AS number")
    return path


@pytest.mark.parametrize("name", ["cache.duckdb", "cache.duckdb.wal", "rows.parquet"])
def test_a_pipe_in_a_files_place_is_not_waited_for(tmp_path: Path, name: str) -> None:
    """DuckDB would, without an end and without a word."""
    os.mkfifo(tmp_path / name)
    with (
        pytest.raises(StoreError, match=rf"{name} is no plain file: move it away"),
        database_file(tmp_path / "cache.duckdb", read_only=False) as db,
    ):
        db.execute(f"FROM {parquet_rows(tmp_path / 'rows.parquet')}")


def add_row(path: Path, *, interrupted: bool = False) -> None:
    """Adds the new row, in one transaction. interrupted: before its end."""
    with database_file(path, read_only=False) as db, transaction(db):
        db.execute("INSERT INTO numbers VALUES (2)")
        if interrupted:
            raise KeyboardInterrupt


def rows(path: Path) -> list[int]:
    """What the database holds."""
    with database_file(path, read_only=True) as db:
        return [number for (number,) in db.execute("FROM numbers ORDER BY 1").fetchall()]


def test_a_database_is_written_and_read_in_its_place(file: Path) -> None:
    """It lies beside nothing but its lock, and nothing of it lies elsewhere."""
    file.chmod(0o640)
    add_row(file)
    assert rows(file) == [OLD, NEW]
    assert {path.name for path in file.parent.iterdir()} <= {file.name, "cache.lock"}
    assert file.stat().st_mode & 0o777 == 0o640
    assert not [path for path in (file.parents[1] / "user").rglob("*") if path.is_file()]


def test_what_is_raised_leaves_the_database_as_it_was(file: Path) -> None:
    """Nothing of a transaction that did not end is in it."""
    with pytest.raises(KeyboardInterrupt):
        add_row(file, interrupted=True)
    assert rows(file) == [OLD]


@pytest.mark.parametrize(
    ("file", "step", "left"),
    [
        *((name, step, [OLD]) for name in COPIED for step in ("core.database:_detach", "core.duckdb_paths:_put_back")),
        *((name, "core.database:_detach", [OLD, NEW]) for name in LINKED),
    ],
    indirect=["file"],
)
def test_a_killed_process_leaves_a_whole_database(file: Path, step: str, left: list[int]) -> None:
    """With what was committed, where it has a log; without, where it is a copy that is not in its place yet."""
    kill_at(step, add_row, file)
    assert rows(file) == left
    add_row(file)
    assert rows(file) == [*left, NEW]
    assert not [path for path in (file.parents[1] / "user").rglob("*") if path.is_file()]


@pytest.mark.parametrize("file", COPIED, indirect=True)
def test_two_writers_of_copies_take_turns(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one waits, and then says for whom."""
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0)
    with database_file(file, read_only=False), pytest.raises(Busy, match="in use by"):
        add_row(file)


def test_a_cache_folder_that_is_misread_too_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there is no place for what helps, and the sentence says what to do."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x\\y"))
    (tmp_path / "a?b").mkdir()
    with (
        pytest.raises(StoreError, match="set XDG_CACHE_HOME"),
        database_file(tmp_path / "a?b" / "c.duckdb", read_only=False),
    ):
        pass
