"""Processes are made ready for a model: what they import, and what they search for garbage."""

from __future__ import annotations

import gc
import importlib.metadata
import subprocess
import sys

import pytest

from batchinfer.engines import environment


def test_nothing_is_collected_while_a_model_is_loaded() -> None:
    """And what was made meanwhile is never looked through, so that who asks for it waits for nothing."""
    gc.unfreeze()
    with environment.without_collecting():
        assert not gc.isenabled()
        kept: list[list[int]] = [[number] for number in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= len(kept)
    gc.unfreeze()


def test_collecting_goes_on_after_a_fault() -> None:
    """A model that cannot be loaded leaves the process as it was."""
    with pytest.raises(OSError, match="no room"), environment.without_collecting():
        raise OSError("no room")
    assert gc.isenabled()
    gc.unfreeze()


def test_tokenizers_are_loaded_without_reading_all_packages() -> None:
    """As long as that lasts."""
    whole = importlib.metadata.packages_distributions
    with environment.without_torch():
        assert importlib.metadata.packages_distributions() == {}
    assert importlib.metadata.packages_distributions is whole


def test_an_engine_imports_no_libraries_of_statistics() -> None:
    """They look absent in its process, whatever asks for them."""
    script = """
import importlib.util
from batchinfer.engines import environment
environment.hide_unused_packages()
print([name for name in environment.UNUSED if importlib.util.find_spec(name) is not None])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
