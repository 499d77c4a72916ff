"""Work that is killed at a step, as by `kill -9`, in a process of its own."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

# A process that has loaded all that work needs, and forks for each: starting Python again takes a second of a core.
_PROCESSES = multiprocessing.get_context("forkserver")
# The work and what it is given should lie in these: each process would import a module of tests for itself.
_PROCESSES.set_forkserver_preload([
    "tests.factories", "batchinfer.maintenance.erase", "batchinfer.maintenance.repair", "batchinfer.misses.collector",
    "batchinfer.pipeline.prune", "batchinfer.versions.replication", "pandas",  # which pyarrow would load in each
])  # fmt: skip
SECONDS = 60


def kill_at(step: str, work: Callable[..., object], *arguments: Any, after: bool = False) -> None:
    """Calls `work` in another process, which dies when it gets to a step. Fails the test if it does not.

    step: a function, as in publish.build:check or publish.candidate:Candidate.write. after: let it do its work first.
    """
    process = _PROCESSES.Process(target=_work, args=(step, after, work, *arguments))
    process.start()
    process.join(SECONDS)
    process.kill()
    assert process.exitcode == -signal.SIGKILL, f"it ended with {process.exitcode} before it got to {step}"


def _work(step: str, after: bool, work: Callable[..., object], *arguments: Any) -> None:
    module, _, path = step.partition(":")
    owner: Any = importlib.import_module(module if module in ("os", "shutil", "pathlib") else f"batchinfer.{module}")
    *parts, name = path.split(".")
    for part in parts:
        owner = getattr(owner, part)
    real = getattr(owner, name)

    def killed(*given: Any, **named: Any) -> None:
        if after:
            real(*given, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, killed)
    work(*arguments)
