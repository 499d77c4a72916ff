"""An export: which file it names, that it replaces it as a whole, and what it holds in each format."""

from __future__ import annotations

import csv
import json
import os
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchinfer.core import memory, output_rows
from batchinfer.core.output import OutputFile
from batchinfer.errors import NotFound, StoreError, UsageError
from batchinfer.pipeline import export
from batchinfer.planning.prepare import Options
from tests.factories import World, imports_job, model_job, unchecked, write
from tests.plans import echo
from tests.tiny import RecordingConsole


def test_an_export_names_its_target(tmp_path: Path) -> None:
    """A target that will not do is named, in one sentence, before anything is done; nothing is left beside it."""
    world = model_job(tmp_path, {"id": [1], "text": ["a"]})
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("kept")
    for target, fault in [
        (tmp_path / "none" / "out.parquet", "does not exist: make it first"),
        (tmp_path / "file" / "out.parquet", "Not a directory"),
        (tmp_path / f"{'x' * 300}.csv", "is too long: a name has at most 255 bytes"),
        (tmp_path / "pipe.csv", "is not a file"),
        (tmp_path / "folder.csv", "is not a file"),
    ]:
        before = sorted(tmp_path.iterdir())
        with pytest.raises(UsageError, match=fault):
            export.export(world.job, world.data, Options(), OutputFile.of(target))
        assert sorted(tmp_path.iterdir()) == before


def test_an_export_replaces_its_target_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that breaks off leaves the older file as it was, and nothing beside it; a link stays a link."""
    world = model_job(tmp_path, {"id": [1], "text": ["a"]})
    world.answer(echo)
    real, link = tmp_path / "out" / "real.parquet", tmp_path / "link.parquet"
    real.parent.mkdir()
    real.write_text("older")
    link.symlink_to(real)

    def breaks(db: Any, sql: str, output: Any, draft: Path, *_: Any) -> None:
        draft.write_text("half")
        raise StoreError("the disk went away")

    with monkeypatch.context() as patched:
        patched.setattr(output_rows, "write_output", breaks)
        with pytest.raises(StoreError, match="the disk went away"):
            export.export(world.job, world.data, Options(), OutputFile.of(link))
    assert [path.read_text() for path in real.parent.iterdir()] == ["older"]
    assert export.export(world.job, world.data, Options(), OutputFile.of(link)).rows == 1
    assert (link.is_symlink(), pq.read_table(real).num_rows) == (True, 1)
    assert list(real.parent.iterdir()) == [real]


@pytest.fixture
def json_world(tmp_path: Path) -> World:
    """A job of JSON answers, with one that a spreadsheet or a careless writer would get wrong."""
    world = imports_job(tmp_path, {"id": ["a", ""]}, output={"type": "json", "schema": {}})
    world.take_in({"id": ["a", "b"], "prediction": ['{"é": ["x,\\"y", null]}', "12"], "score": [None, 0.5]})
    return world


def test_an_export_as_json_lines(json_world: World, tmp_path: Path) -> None:
    """As JSON Lines a prediction is the value that it is, times are as look-ups give them, and nothing is null is null."""
    out = tmp_path / "out.JSONL"
    assert export.export(json_world.job, json_world.data, Options(), OutputFile.of(out)).rows == 2
    rows = {row["id"]: row for row in map(json.loads, out.read_text(encoding="utf-8").splitlines())}
    assert rows["a"]["prediction"] == {"é": ['x,"y', None]}
    assert (rows["b"]["prediction"], rows["b"]["score"], rows["a"]["score"]) == (12, 0.5, None)
    assert rows["a"]["generated_at"].endswith("Z")
    assert len(bytes.fromhex(rows["a"]["lookup"])) == 16


def test_an_export_as_csv(json_world: World, tmp_path: Path) -> None:
    """As CSV a prediction is its JSON, quoted where it must be."""
    out = tmp_path / "out.csv"
    export.export(json_world.job, json_world.data, Options(), OutputFile.of(out))
    with out.open(encoding="utf-8", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert json.loads(rows["a"]["prediction"]) == {"é": ['x,"y', None]}
    assert rows["b"]["score"] == "0.5"


def exported(world: World, folder: Path, **options: Any) -> pa.Table:
    """The export as Parquet."""
    export.export(world.job, world.data, Options(**options), OutputFile.of(folder / "all.parquet"))
    return pq.read_table(folder / "all.parquet")


def test_an_export_has_the_list_as_it_is(tmp_path: Path) -> None:
    """All columns of the list are there, and its rows in its order; what people gave beyond it comes last."""
    numbers = [5, 3, 9, 1, 7]
    rows = {
        "note": [f"n{number}" for number in numbers], "id": numbers, "text": ["x", "y", "x", None, "z"],
        "tags": [["a"], [], None, ["b", "c"], ["d"]], "day": [date(2026, 1, number) for number in numbers],
    }  # fmt: skip
    world = model_job(tmp_path, rows)
    world.answer(echo)
    world.take_in({"id": [1, 40, 2], "prediction": ["by hand", "more", "more"]})
    table = exported(world, tmp_path)
    assert table.column_names[:5] == list(rows)
    found = table.select(["id", "note", "tags", "day", "prediction"]).to_pylist()
    assert [row["id"] for row in found[:5]] == numbers
    assert {row["id"] for row in found[5:]} == {2, 40}
    assert [row["note"] for row in found] == [f"n{number}" for number in numbers] + [None, None]
    assert [row["tags"] and json.loads(row["tags"]) for row in found[:5]] == rows["tags"]
    assert (found[3]["prediction"], found[3]["day"]) == ("by hand", date(2026, 1, 1))
    lines = tmp_path / "all.jsonl"
    export.export(world.job, world.data, Options(), OutputFile.of(lines))
    assert [json.loads(line)["tags"] for line in lines.read_text(encoding="utf-8").splitlines()[:5]] == rows["tags"]


def test_columns_make_way_for_those_of_the_answer(tmp_path: Path) -> None:
    """A column of the list with the name of one of the answer's gets list_ before it, a key column key_."""
    rows = {"score": [0.5], "list_score": ["x"], "Model": ["m"], "source": ["s"]}
    world = imports_job(tmp_path, rows, input={"path": "queries.parquet", "key": ["source"]})
    world.take_in({"source": ["s"], "prediction": ["p"], "score": [0.9]})
    [row] = exported(world, tmp_path).to_pylist()
    assert (row["list_list_score"], row["list_score"], row["score"]) == ("x", 0.5, 0.9)
    assert (row["list_Model"], row["model"], row["key_source"], row["source"]) == ("m", None, "s", "import")


def test_columns_that_no_prompt_could_have(tmp_path: Path) -> None:
    """Text that is not UTF-8, times of day, durations and nothing but nulls do not stop an export."""
    rows = {
        "id": [1, 2], "raw": unchecked([b"\xff", b"b"], pa.string()), "at": [time(1, 2, 3), None],
        "lasts": [timedelta(seconds=3), None], "nothing": pa.nulls(2), "big": pa.array([2**64 - 1, 0], pa.uint64()),
    }  # fmt: skip
    world = imports_job(tmp_path, rows)
    world.take_in({"id": [1, 2], "prediction": ["p", "q"]})
    first, second = exported(world, tmp_path).select(list(rows)).to_pylist()
    assert (first["raw"], second["raw"]) == ("\ufffd", "b")
    assert (first["at"], first["nothing"], first["big"]) == ("01:02:03.000000", None, 2**64 - 1)
    assert first["lasts"] is not None


def test_files_that_differ_in_their_columns(tmp_path: Path) -> None:
    """A column of two kinds is text; one that not every file has is left out, which is said."""
    world = imports_job(tmp_path, {"id": [0]}, input={"path": "list", "key": ["id"], "where": {"use": True}})
    write(world.job.folder / "list/1.parquet", {"id": [1, 2], "size": [7, 8], "only": [1, 1], "use": [False, True]})
    write(world.job.folder / "list/2.parquet", {"use": [True], "size": ["big"], "id": [0], "Id": [3]})
    write(world.job.folder / "list/3.parquet", {"use": [True, True], "size": [0.5, 1], "id": [5, 2]})
    world.take_in({"id": [5, 2, 1], "prediction": ["p"] * 3})
    person = RecordingConsole()
    export.export(world.job, world.data, Options(), OutputFile.of(tmp_path / "out.csv"), person)
    text = (tmp_path / "out.csv").read_text(encoding="utf-8")
    assert [line.split(",")[:2] for line in text.splitlines()] == [
        ["id", "size"], ["2", "8"], ["5", "0.5"], ["1", ""],
    ]  # fmt: skip
    assert "Left out, since not every file of the list has them once: only, Id." in person.said


@pytest.mark.long
def test_a_large_export_is_of_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More text than the memory may hold goes out, over the disk, and in the list's order."""
    count = 40_000
    ids = [(number * 7919) % count for number in range(count)]
    world = imports_job(tmp_path, {"id": ids, "text": [f"{number:05d}" * 300 for number in ids]})
    world.take_in({"id": ids, "prediction": ["p"] * count})
    monkeypatch.setenv(memory.VARIABLE, "64MB")
    export.export(world.job, world.data, Options(), OutputFile.of(tmp_path / "out.csv"))
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [int(row["id"]) for row in csv.DictReader(file)] == ids


def test_an_export_without_answers_writes_nothing(tmp_path: Path) -> None:
    """Where the cache has no answer for the list, an earlier file stays as it was."""
    world = model_job(tmp_path, {"id": [1], "text": ["a"]})
    out = tmp_path / "out.csv"
    out.write_text("older")
    with pytest.raises(NotFound, match="has no answer for this list, so nothing was written: batchinfer run"):
        export.export(world.job, world.data, Options(), OutputFile.of(out))
    assert out.read_text() == "older"
