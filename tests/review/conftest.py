"""Makes jobs to be reviewed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.factories import LENIENT, World, model_job
from tests.review.lists import LIST, Make


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a job with these rows."""

    def job(rows: Mapping[str, Any] = LIST, **sections: Any) -> World:
        return model_job(tmp_path, rows, **({"gate": LENIENT} | sections))

    return job
