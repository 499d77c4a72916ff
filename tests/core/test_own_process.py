"""What runs beside a command ends with it, and finds its modules where the command does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batchinfer.core.own_process import command_of, environment
from tests.tiny import alive, until

CHILD = """\
import sys, time
from batchinfer.core.own_process import end_with_parent
end_with_parent()
print("ready", flush=True)
time.sleep(600)
"""
PARENT = f"""\
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_command(number: int) -> None:
    """However the command went: what is left would go on for hours, with memory that the next one needs."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=environment()) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(number)
        parent.wait()
    until(lambda: not alive(child))


def test_no_module_of_the_working_folder_is_taken(tmp_path: Path) -> None:
    """As a file there might be named as any module is."""
    (tmp_path / "json.py").write_text("raise SystemExit('taken')", encoding="utf-8")
    done = subprocess.run(
        command_of("json.tool", os.devnull, os.devnull),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert b"taken" not in done.stderr
