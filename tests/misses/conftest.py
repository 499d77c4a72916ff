"""A data folder that misses go to."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchinfer.core.home import JobData


@pytest.fixture
def data(tmp_path: Path) -> JobData:
    """The data folder of a job that was published."""
    data = JobData(tmp_path / "home", "shop")
    data.folder.mkdir(parents=True)
    return data
