"""Paths are names: no data folder is taken for a pattern, or for a partition."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batchinfer.core.home import JobData
from batchinfer.core.output import OutputFile
from batchinfer.maintenance.erase import erase_entry
from batchinfer.pipeline.export import export
from batchinfer.planning.prepare import Options
from batchinfer.publish import diff
from tests.factories import LENIENT, World, imports_job

TOWNS = ["Bonn", "Kiel", "Ulm"]
PLAIN = ["a b", " ", "it's", 'a"b', "x\ny", "x\ty", "ü", "東京", "🍎", "e\u0301", "50%", "a%20b", "%s", "{a,b}", "{0}", "$HOME",
         "~", "a;b", "a:b", "a&b", "#", "-x", "--home", "a]b"]  # fmt: skip
PARTITIONS = ["town=Ulm", "town=Ulm/id=7", "lookup=1", "prediction=x/carried=1", "=", "a=b=c"]
PATTERNS = [["*", "[ab]"], ["**", "[", "[!a]"], ["a*b", "[a-z]", "a[*]b", "***.parquet"]]
MISREAD = [["a\\b", "\\"], ["what?", "?\\", "x=?*"]]  # by DuckDB, as slashes and as parameters


def town_job(folder: Path, root: Path) -> World:
    """A job with a key column `town`; its data folder is `root`."""
    made = imports_job(folder, {"town": TOWNS}, input={"path": "queries.parquet", "key": ["town"]}, gate=LENIENT,
                       match={"terms": ["town"], "concept": "prediction"})  # fmt: skip
    return dataclasses.replace(made, data=JobData(root, made.job.name))


@pytest.mark.parametrize("names", [PLAIN[:12], PLAIN[12:], PARTITIONS, *PATTERNS, *MISREAD])
@pytest.mark.long
def test_any_name_of_a_data_folder_is_a_name(tmp_path: Path, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever folders the data folder lies below: entries are published, looked up, compared, exported and forgotten."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    root = tmp_path.joinpath("data", *names)
    other = root.parent / "axb"  # what a pattern could find instead
    other.mkdir(parents=True)
    world = town_job(tmp_path, root)
    for number in (1, 2):
        world.take_in({"town": TOWNS, "prediction": [f"{town} {number}" for town in TOWNS]})
        assert world.publish().version == number
    assert json.loads(world.get(town="Kiel") or b"")["query"] == {"town": "Kiel"}
    assert diff.compare(world.data, [], None, 5).changed == len(TOWNS)
    export(world.job, world.data, Options(), OutputFile.of(root / "out.parquet"))
    assert sorted(pq.ParquetFile(root / "out.parquet").read()["town"].to_pylist()) == TOWNS
    erase_entry(world.job, world.data, {"town": "Kiel"})
    assert world.get(town="Kiel") is None
    with world.served() as version:
        kept = pq.ParquetFile(version.folder / "predictions.parquet").read().to_pylist()
    assert sorted(row["town"] for row in kept) == ["Bonn", "Ulm"]


def test_a_list_below_a_folder_that_looks_like_a_pattern_is_found(tmp_path: Path) -> None:
    """Only the part of a path that names no folder is a pattern."""
    world = town_job(tmp_path / "[ab]=1*", tmp_path / "data")
    world = world.changed(input={"path": "quer*.parquet", "key": ["town"]})
    world.take_in({"town": TOWNS, "prediction": TOWNS})
    assert world.publish().version == 1
