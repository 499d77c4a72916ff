"""The command for tests: called in an empty folder, with the scripted engine in place of vLLM, and a job for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.factories import Templates
from tests.tiny import ROOT, Cli, write_job

ECHO = {"answer": "echo", "per_step": 8}
ROWS = {"text": ["one", "two", "three"]}


@pytest.fixture
def batchinfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command, called in an empty folder, with the scripted engine in place of vLLM."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return Cli(monkeypatch, capsys, tmp_path / "home")


@pytest.fixture
def shop(tmp_path: Path, tiny: Path) -> Callable[..., Path]:
    """Writes jobs/shop, a job for the tiny model whose engine echoes; sections and rows can be replaced."""

    def write(
        rows: dict[str, list[Any]] | None = None, *, script: dict[str, Any] | None = None, **sections: Any
    ) -> Path:
        rows = ROWS if rows is None else rows
        return write_job(tmp_path / "jobs" / "shop", rows, tiny, script=ECHO if script is None else script, **sections)

    return write


def echoed(folder: Path, tiny: Path) -> None:
    """jobs/shop, and a data folder, `home`, as a run leaves it."""
    place = write_job(folder / "jobs" / "shop", ROWS, tiny, script=ECHO)
    command = [sys.executable, "-m", "tests.tiny", "--home", str(folder / "home"), "run", str(place)]
    locks = {"TMPDIR": str(folder.parent), "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env={**os.environ, **locks})


@pytest.fixture
def ran(templates: Templates, tmp_path: Path, tiny: Path) -> Path:
    """jobs/shop, after a first run of it."""
    templates.copy(echoed, tmp_path, tiny)
    return tmp_path / "jobs" / "shop"
