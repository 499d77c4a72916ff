"""Modules of this program that run in a process of their own: what needs torch, may take too much, or may die."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of Linux' <sys/prctl.h>


def command_of(module: str, *arguments: str) -> list[str]:
    """The command line that runs it. What lies in the working folder is not taken for one of its modules."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(**more: str) -> dict[str, str]:
    """The environment in which it finds the modules that this process finds."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)} | more


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """Has this process get a signal when the thread that started it is gone, however that went."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
