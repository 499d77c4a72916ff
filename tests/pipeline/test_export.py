"""An export: which file it names, and that it replaces it as a whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from batchinfer.errors import StoreError, UsageError
from batchinfer.pipeline import export
from batchinfer.planning.prepare import Options
from batchinfer.publish.contents import Candidate
from tests.factories import model_job
from tests.plans import echo


def test_an_export_names_its_target(tmp_path: Path) -> None:
    """A target that will not do is named, in one sentence, before anything is done; nothing is left beside it."""
    world = model_job(tmp_path, {"id": [1], "text": ["a"]})
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("kept")
    for target, fault in [
        (tmp_path / "none" / "out.parquet", "No such file or directory"),
        (tmp_path / "file" / "out.parquet", "Not a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path / "pipe", "is not a file"),
        (tmp_path, "is not a file"),
    ]:
        before = sorted(tmp_path.iterdir())
        with pytest.raises(UsageError, match=fault) as raised:
            export.export(world.job, world.data, Options(), target)
        assert str(raised.value).startswith(f"{target} ")
        assert sorted(tmp_path.iterdir()) == before


def test_an_export_replaces_its_target_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that breaks off leaves the older file as it was, and nothing beside it; a link stays a link."""
    world = model_job(tmp_path, {"id": [1], "text": ["a"]})
    world.answer(echo)
    real, link = tmp_path / "out" / "real.parquet", tmp_path / "link.parquet"
    real.parent.mkdir()
    real.write_text("older")
    link.symlink_to(real)

    def breaks(candidate: Any, target: Path) -> None:
        target.write_text("half")
        raise duckdb.IOException("IO Error: the disk went away")

    with monkeypatch.context() as patched:
        patched.setattr(Candidate, "write", breaks)
        with pytest.raises(StoreError, match=r"link\.parquet cannot be written: IO Error: the disk went away"):
            export.export(world.job, world.data, Options(), link)
    assert [path.read_text() for path in real.parent.iterdir()] == ["older"]
    assert export.export(world.job, world.data, Options(), link).rows == 1
    assert (link.is_symlink(), pq.read_table(real).num_rows) == (True, 1)
    assert list(real.parent.iterdir()) == [real]
