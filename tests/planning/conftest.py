"""Makes jobs whose list is planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.factories import World, model_job
from tests.plans import Make


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a job with these rows."""

    def job(rows: dict[str, Any], **sections: Any) -> World:
        return model_job(tmp_path, rows, **sections)

    return job
