"""TRL's trainer beside the plain loop, on tiny models: what it learns, and that it stops and goes on as the loop does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import ROOT


@pytest.mark.slow
def test_trl_learns_what_the_plain_loop_learns(tmp_path: Path, model_folder: Path) -> None:
    """And of a mixture of experts, too: see sft_alone.py."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'alone'}",
         "-W", "default", "tests/training/sft_alone.py"],
        cwd=ROOT, env=os.environ | {"MODEL_FOLDER": str(model_folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
