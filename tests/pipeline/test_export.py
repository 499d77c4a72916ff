"""An export: which file it names, that it replaces it as a whole, and what it holds in each format."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchinfer.core import database
from batchinfer.core.output import OutputFile
from batchinfer.errors import StoreError, UsageError
from batchinfer.pipeline import export
from batchinfer.planning.prepare import Options
from tests.factories import World, imports_job, model_job
from tests.plans import echo


def test_an_export_names_its_target(tmp_path: Path) -> None:
    """A target that will not do is named, in one sentence, before anything is done; nothing is left beside it."""
    world = model_job(tmp_path, {"id": [1], "text": ["a"]})
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("kept")
    for target, fault in [
        (tmp_path / "none" / "out.parquet", "does not exist: make it first"),
        (tmp_path / "file" / "out.parquet", "Not a directory"),
        (tmp_path / f"{'x' * 300}.csv", "File name too long"),
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

    def breaks(db: Any, sql: str, output: Any, draft: Path, _: Any) -> None:
        draft.write_text("half")
        raise StoreError("the disk went away")

    with monkeypatch.context() as patched:
        patched.setattr(database, "write_output", breaks)
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
