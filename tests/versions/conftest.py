"""A data folder with versions."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from batchinfer.core.home import JobData
from tests.factories import LENIENT, imports_job


@pytest.fixture(scope="package")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with three versions of the job shop, which say 1, 2 and 3 of the entry a."""
    world = imports_job(tmp_path_factory.mktemp("world"), {"id": ["a", "b"]}, gate=LENIENT)
    for number in (1, 2, 3):
        world.take_in({"id": ["a", "b"], "prediction": [str(number), "b"]})
        assert world.publish().version == number
    return world.data.root


@pytest.fixture
def data(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobData:
    """A copy of it. What was compared with its checksums is remembered beside it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shutil.copytree(published, tmp_path / "home")
    return JobData(tmp_path / "home", "shop")
