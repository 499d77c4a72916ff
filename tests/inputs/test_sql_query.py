"""Lists that are queries: what they may read, and that they write nothing."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchinfer.errors import BatchinferError, InputError
from batchinfer.inputs.files import list_columns, list_files
from batchinfer.inputs.sql_process import AskedQuery
from batchinfer.job import reader
from tests.factories import World, imports_job, write


def asking(folder: Path, sql: str) -> World:
    """A job whose list is a query, with a file to ask beside it, and one outside its folder."""
    world = imports_job(folder, {"id": ["a"]}, input={"sql": sql, "key": ["id"]})
    write(world.job.folder / "in" / "a.parquet", {"id": ["x", "y"], "n": [1, 2]})
    write(folder / "outside" / "b.parquet", {"id": ["secret"]})
    return world


def rows(world: World, scratch: Path) -> list[dict[str, Any]]:
    [file], upstream = list_files(world.job, world.data, None, scratch)
    assert upstream is None
    return list(pq.read_table(file.path).to_pylist())


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id, n FROM '{folder}/in/*.parquet' ORDER BY id",
        "FROM '{folder}/in/a.parquet';",
        "WITH q AS (FROM read_parquet('{folder}/in/a.parquet')) SELECT * FROM q -- all of them",
    ],
)
def test_a_query_is_a_list(tmp_path: Path, sql: str) -> None:
    """Over files below the job's folder."""
    world = asking(tmp_path, sql)
    assert rows(world, tmp_path) == [{"id": "x", "n": 1}, {"id": "y", "n": 2}]
    source, _ = list_columns(world.job, world.data, used=["n"])
    assert source.kinds == {"id": "string", "n": "integer"}


@pytest.mark.parametrize("name", ["it's", "w[1]", "a*b?", "lang=de", "a%41 b"])
@pytest.mark.parametrize("path", ["in/a.parquet", "in/*.parquet", "**/a.parquet"])
def test_a_folder_of_any_name(tmp_path: Path, name: str, path: str) -> None:
    """It ends no text of the query, stands for no other names, and names no column."""
    world = asking(tmp_path / name, f"SELECT * FROM '{{folder}}/{path}'")
    assert rows(world, tmp_path) == [{"id": "x", "n": 1}, {"id": "y", "n": 2}]


def test_types_that_no_list_can_have_are_texts(tmp_path: Path) -> None:
    """All of their digits are there."""
    sql = "SELECT 'a' AS id, md5_number('c0') AS hash, -7::HUGEINT AS huge, INTERVAL 1 DAY AS day, union_value(k := 1) AS u; -- end"
    [row] = rows(asking(tmp_path, sql), tmp_path)
    assert row == {
        "id": "a",
        "hash": "22368101384436160489349229206389939376",
        "huge": "-7",
        "day": "1 day",
        "u": "1",
    } | {"hash": row["hash"]}
    assert row["hash"].isdigit()
    assert len(row["hash"]) > 36


def test_a_signal_ends_a_query(tmp_path: Path) -> None:
    """Whatever it is at: DuckDB does not look for signals by itself."""
    sql = "SELECT count(*) AS id FROM range(3000000000) a(i), range(100000) b(j) WHERE i * j % 7 = 3"
    world = asking(tmp_path, sql)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    try:
        threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            rows(world, tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "sql",
    [
        pytest.param("SELECT repeat('x', 3000000000) AS id", id="one text of 3 GB"),
        pytest.param("SELECT i || repeat('x', 9000000) AS id FROM range(2000) r(i)", id="18 GB in two thousand rows"),
        pytest.param("SELECT string_agg(repeat('x', 1000000)) AS id FROM range(9000)", id="9 GB put together"),
    ],
)
@pytest.mark.long
def test_a_query_that_needs_all_memory_gets_none(tmp_path: Path, sql: str) -> None:
    """It is refused in words, and the process that asked for it goes on."""
    with pytest.raises(BatchinferError, match=r"line 3: input\.sql: .* too much memory: .*BATCHINFER_MEMORY higher"):
        rows(asking(tmp_path, sql), tmp_path)


def test_a_process_that_dies_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its exit code."""
    monkeypatch.setattr(AskedQuery, "__module__", "batchinfer.there_is_none")
    with pytest.raises(InputError, match=r"it ended the process that it ran in \(exit code 1\)"):
        rows(asking(tmp_path, "SELECT 1 AS id"), tmp_path)


def test_a_query_may_read_below_an_allowed_root(tmp_path: Path) -> None:
    """By whole paths."""
    outside = tmp_path / "outside"
    world = asking(tmp_path, f"SELECT id FROM '{outside}/b.parquet'")
    job = reader.load(str(world.job.folder), {reader.ROOTS_VARIABLE: str(outside)})
    [file], _ = list_files(job, world.data, None, tmp_path)
    assert pq.read_table(file.path).to_pylist() == [{"id": "secret"}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM '{outside}/b.parquet'",
        "SELECT * FROM '{folder}/../outside/b.parquet'",
        "SELECT * FROM '{folder}/link/b.parquet'",
        "SELECT * FROM 'in/a.parquet'",
        "SELECT content AS id FROM read_text('/etc/hostname')",
        "SELECT file AS id FROM glob('/etc/*')",
        "SELECT * FROM 'https://example.org/a.parquet'",
    ],
)
def test_a_query_reaches_nothing_outside(tmp_path: Path, sql: str) -> None:
    """Not by .., nor by a link; a path that begins nowhere is told where it can begin."""
    world = asking(tmp_path, sql.replace("{outside}", str(tmp_path / "outside")))
    (world.job.folder / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(
        BatchinferError, match=r"line 3: input\.sql: the query does not work: .*\{folder\}.*BATCHINFER_INPUT_ROOTS"
    ):
        rows(world, tmp_path)


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("COPY (SELECT 1 AS id) TO '{folder}/out.parquet'", "it must be one SELECT, which writes nothing, and is COPY"),
        ("SELECT 1 AS id; DROP TABLE x", "and is SELECT, DROP"),
        ("ATTACH 'x.db'", "and is ATTACH"),
        ("INSTALL httpfs", "and is LOAD"),
        ("SET threads = 1", "and is SET"),
        ("-- nothing", "and is nothing"),
        ("SELEC 1", "it cannot be read: Parser Error"),
        ("SELECT 1 AS id) TO '{folder}/x' --", "it cannot be read|."),
        ("SELECT id FROM there_is_none", "there_is_none does not exist"),
        ("SELECT id FROM read_csv('{folder}/none.csv')", "No files found"),
        ("SELECT CAST('x' AS INTEGER) AS id", "Could not convert"),
        (
            "SELECT CASE WHEN i = 90000 THEN CAST('x' || i AS INT) ELSE i END AS id FROM range(100000) r(i)",
            "Could not convert",
        ),
    ],
)
def test_what_is_no_query_is_refused(tmp_path: Path, sql: str, sentence: str) -> None:
    """With the line of the job file, and nothing is written."""
    world = asking(tmp_path, sql)
    with pytest.raises(BatchinferError, match=rf"line 3: input\.sql: the query does not work: .*({sentence})"):
        rows(world, tmp_path)
    assert sorted(path.name for path in world.job.folder.iterdir()) == ["in", "job.yaml", "queries.parquet"]


def test_a_query_cannot_see_what_python_has(tmp_path: Path) -> None:
    """Names are tables of the query alone."""
    with pytest.raises(BatchinferError, match="does not exist"):
        rows(asking(tmp_path, "SELECT * FROM schema"), tmp_path)


def test_no_rows_are_refused_as_in_any_list(tmp_path: Path) -> None:
    """An empty list would remove all that is served."""
    world = asking(tmp_path, "SELECT id FROM '{folder}/in/a.parquet' WHERE n > 5")
    with pytest.raises(InputError, match="has no rows"), world.prepared():
        pass
