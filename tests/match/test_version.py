"""What there is of matching where its libraries are not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.tiny import ROOT

WITHOUT = """
import importlib, pkgutil, sys
sys.modules["regex"] = sys.modules["daachorse"] = None  # an import of them fails
import batchinfer
for folder in ("cli", "client", "inputs", "maintenance", "pipeline", "planning", "publish", "review", "serve", "versions"):
    package = importlib.import_module(f"batchinfer.{folder}")
    for module in pkgutil.iter_modules(package.__path__, f"batchinfer.{folder}."):
        if not module.name.startswith("batchinfer.publish.student"):  # imported where a job has one
            importlib.import_module(module.name)
"""


@pytest.mark.long
def test_all_but_matching_works_without_its_libraries() -> None:
    """Every module outside of matching and students can be imported: they are extras."""
    subprocess.run([sys.executable, "-c", WITHOUT], check=True, cwd=ROOT, timeout=120)
