"""A process of our own looks for garbage seldom, and not at its end."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc
from batchinfer.core.garbage import SELDOM, collect_as_usual, collecting_seldom
usual = gc.get_threshold()
with collecting_seldom():
    kept = [[number] for number in range(1000)]
    print(gc.isenabled(), gc.get_threshold()[0] == SELDOM, gc.get_freeze_count() == 0)
print(gc.get_freeze_count() > len(kept))
collect_as_usual()
print(gc.get_threshold() == usual)
"""


def test_a_command_looks_for_garbage_seldom() -> None:
    """Cycles are found all the same while it works; what is there at its end is not looked through. A worker looks as often as ever."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 5


def test_the_command_line_is_such_a_process() -> None:
    """Whatever it does, and however that ends."""
    script = """
import gc, sys
from batchinfer.cli.main import main
from batchinfer.core.garbage import SELDOM
sys.argv = ["batchinfer", "no-such-command"]
try:
    main()
except SystemExit as exc:
    print(exc.code, gc.get_threshold()[0] == SELDOM, gc.get_freeze_count() > 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "True", "True"]
