"""What only looks changes nothing: no data folder, no job in it, no model in its folder; it reads where it cannot write."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from batchinfer.cache import schema
from batchinfer.cache.store import Store
from batchinfer.cli.main import cli
from batchinfer.core.home import JobData
from tests.factories import imports_job
from tests.tiny import Cli

LOOKS = [
    ["plan", "shop"], ["export", "shop", "out.parquet"], ["review", "shop", "--out", "out.csv"], ["try", "shop", "text=one"],
    ["doctor", "shop"], ["import", "shop", "--list"], ["import", "shop", "--undo", "1"], ["jobs"], ["jobs", "remove", "shop", "--yes"],
    ["keys", "list"], ["keys", "add", "search", "--yes"], ["keys", "revoke", "search"], ["serve"],
]  # fmt: skip


@pytest.mark.parametrize("command", LOOKS, ids=lambda command: " ".join(command[:2]))
def test_a_data_folder_is_not_made_by_looking(batchinfer: Cli, shop: Callable[..., Path], command: list[str]) -> None:
    """Whatever comes of it, a mistyped --home makes no folder."""
    shop()
    done = batchinfer(*command)
    assert done.code in (0, 1, 2, 6), done
    assert not batchinfer.data.exists()


@pytest.mark.parametrize("command", LOOKS[:5], ids=lambda command: command[0])
def test_a_job_is_not_made_by_looking(batchinfer: Cli, shop: Callable[..., Path], command: list[str]) -> None:
    """A job that was planned, tried or exported and never run is not in the data folder: nothing lists or serves it."""
    shop()
    batchinfer.data.mkdir()
    done = batchinfer(*command)
    assert done.code == (6 if command[0] in ("export", "review") else done.code)
    assert done.code in (0, 1, 6)
    assert list(batchinfer.data.iterdir()) == []
    assert batchinfer("jobs").code == 6


@pytest.mark.parametrize("command", [["run", "shop"], ["import", "shop", "in.parquet"], ["publish", "shop"]])
def test_a_data_folder_is_made_by_what_writes(batchinfer: Cli, shop: Callable[..., Path], command: list[str]) -> None:
    """run, import and publish make it, and say where; only the first time."""
    shop(gate={"coverage": 0.0})
    pq.write_table(pa.table({"text": ["one"], "prediction": ["1"]}), "in.parquet")
    said = f"The data folder {batchinfer.data} does not exist yet: it is made now."
    assert said in batchinfer(*command).err.splitlines()
    assert (batchinfer.data / "shop" / "job.json").is_file()
    assert said not in batchinfer(*command).err


FAILING = [
    ["run", "shop", "--input", "none.parquet"], ["run", "shop", "--refresh", "none=1"], ["publish", "shop", "--input", "bad.parquet"],
    ["import", "shop", "none.csv"], ["import", "shop", "in.parquet"], ["import", "shop", "in.parquet", "--list"],
    ["publish", "shop", "--candidate", "r1"],
]  # fmt: skip


@pytest.mark.parametrize("command", FAILING, ids=" ".join)
def test_a_command_that_cannot_begin_leaves_no_job(
    batchinfer: Cli, shop: Callable[..., Path], command: list[str]
) -> None:
    """With a list or file that is not there, or is refused whole, or with wrong options, no job is listed afterwards."""
    shop()
    Path("bad.parquet").write_text("no Parquet")
    pq.write_table(pa.table({"text": ["beyond the list"], "prediction": ["1"]}), "in.parquet")
    done = batchinfer(*command)
    assert done.code in (2, 6)
    assert ("it is made now" in done.err) == batchinfer.data.exists()
    assert batchinfer("jobs").code == 6
    assert not list(batchinfer.data.glob("*/job.json"))


def test_a_plan_says_where_nothing_is_cached(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """Where there is no data folder, or nothing of the job in it, that is said."""
    shop()
    assert f"There is no data folder {batchinfer.data} yet, so nothing is cached." in batchinfer("plan", "shop").err
    batchinfer.data.mkdir(exist_ok=True)
    assert "has nothing of the job shop yet, so nothing is cached." in batchinfer("plan", "shop").err


def test_a_name_that_the_data_folder_knows_is_enough(
    batchinfer: Cli, ran: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The hints name jobs: that works from any folder, as long as the job file is there and has that name."""
    assert batchinfer("publish", "shop").code == 0  # the data folder is a copy, and learns where its job file is
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert batchinfer("plan", "shop").code == 0
    assert batchinfer("plan", "shup").code == 2
    (ran / "job.yaml").rename(ran / "other.yaml")
    assert "There is no job shop" in batchinfer("plan", "shop").err


def test_a_job_of_imports_has_nothing_to_generate(tmp_path: Path) -> None:
    """Its plan and run say how many rows have no prediction, in the same words, and speak of no prompts."""
    world = imports_job(tmp_path, {"id": [1, 2, 3]}, gate={"coverage": 0})
    world.take_in({"id": [1], "prediction": ["b"]})
    for command in ("plan", "run"):
        said = CliRunner().invoke(cli, ["--home", str(world.data.root), command, str(world.job.path)]).output
        figures = {
            name.strip(): figure for name, _, figure in (line.strip().rpartition(" ") for line in said.splitlines())
        }
        assert (figures["without a prediction"], figures["imported"]) == ("2", "1")
        assert "generate" not in said


def test_a_cache_that_is_older_is_read_in_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the folder cannot be written, an older cache is brought up to date beside it, and stays as it is."""
    path = tmp_path / "shop" / "cache.duckdb"
    path.parent.mkdir()
    (tmp_path / "scratch").mkdir()
    with monkeypatch.context() as older:
        older.setattr("batchinfer.cache.store.MIGRATIONS", schema.MIGRATIONS[:-1])
        Store(path).create_or_migrate()
    before = path.read_bytes()
    monkeypatch.setattr(os, "access", lambda *_: False)
    copy = Store(path).for_reading(tmp_path / "scratch")
    assert copy.path.parent == tmp_path / "scratch"
    assert copy.runs() == []
    assert path.read_bytes() == before
    monkeypatch.undo()
    assert Store(path).for_reading(tmp_path / "scratch").path == path
    assert path.read_bytes() != before


def everything(folder: Path) -> dict[Path, tuple[int, int]]:
    """Whatever lies below a folder, with size and time."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in (folder, *folder.rglob("*"))}


READS = [
    ["plan", "shop"], ["export", "shop", "out.parquet"], ["review", "shop", "--out", "out.csv"], ["versions", "shop"],
    ["lookup", "shop", "text=one"], ["runs", "shop"], ["failures", "shop"], ["jobs"], ["import", "shop", "--list"],
    ["diff", "shop", "1", "1"], ["try", "shop", "text=one"], ["copy", "shop", "elsewhere"],
]  # fmt: skip


@pytest.mark.parametrize("command", READS, ids=lambda command: command[0])
def test_what_reads_needs_no_right_to_write(
    batchinfer: Cli, ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """On a data folder that cannot be written, such as one that is mounted read-only, everything that only reads works."""
    allowed = os.access
    monkeypatch.setattr(  # not by permissions: root may write anything
        os,
        "access",
        lambda path, mode: mode != os.W_OK or (str(batchinfer.data) not in str(path) and allowed(path, mode)),
    )
    (tmp_path / "elsewhere").mkdir()
    before = everything(batchinfer.data)
    done = batchinfer(*command)
    assert done.code == 0, done
    assert everything(batchinfer.data) == before
    left = [path.name for path in tmp_path.iterdir() if path.name.startswith("batchinfer-")]
    assert [name for name in left if not name.startswith(("batchinfer-devices", "batchinfer-cpu"))] == []


def test_imports_under_another_key_are_read_without_writing(
    batchinfer: Cli, shop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What earlier imports hold for a key that changed is worked out in a copy where the cache cannot be changed."""
    shop({"text": ["one", "two"], "more": ["a", "b"]}, input={"path": "queries.parquet", "key": ["text", "more"]})
    pq.write_table(pa.table({"text": ["one"], "more": ["a"], "prediction": ["1"]}), "in.parquet")
    assert batchinfer("import", "shop", "in.parquet").code == 0
    shop({"text": ["one", "two"], "more": ["a", "b"]}, input={"path": "queries.parquet", "key": ["more", "text"]})
    cache = JobData(batchinfer.data, "shop").cache
    before = cache.read_bytes()
    monkeypatch.setattr(JobData, "is_writable", property(lambda _: False))
    assert batchinfer("plan", "shop", "--json").json["hits"] == 1
    assert cache.read_bytes() == before
    monkeypatch.undo()
