"""The engine process: takes prompts from a pipe, drives a model, sends back what finishes.

Started as `python -m batchinfer.engines.child FD`, FD being its end of the pipe.

Messages to it:   ("load", (driver, EngineConfig, Placement, log)) first, ("task", Task), ("prompts", [Prompt]), ("stop", None)
Messages from it: ("ready", EngineInfo), ("failed", sentence), ("results", [Generation | Failure])
"""

from __future__ import annotations

import importlib
import os
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from batchinfer.core.records import Failure, Generation, Prompt
from batchinfer.engines.protocol import EngineInfo, Task
from batchinfer.errors import BatchinferError

ChildInbox = queue.SimpleQueue[tuple[str, Any]]


class Driver(Protocol):
    """The model inside an engine process; `vllm.VllmDriver` is the one that matters."""

    info: EngineInfo

    def begin(self, task: Task) -> None: ...
    def add(self, prompt: Prompt) -> Failure | None: ...
    def busy(self) -> bool: ...
    def step(self) -> list[Generation | Failure]: ...


def main(pipe: Connection) -> None:
    """Loads a driver, then serves it. Ends the process when told to stop; a crash ends it, too."""
    _, (driver_path, config, placement, log) = pipe.recv()
    _detach(log)
    if not placement.is_cpu:
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-smi counts them
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpu.index for gpu in placement.gpus)
    inbox: ChildInbox = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, inbox), daemon=True).start()
    try:
        module, _, name = driver_path.partition(":")
        driver: Driver = getattr(importlib.import_module(module), name)(config, placement)
        pipe.send(("ready", driver.info))
        _serve(pipe, inbox, driver)
    except BatchinferError as exc:
        pipe.send(("failed", str(exc)))


def _serve(pipe: Connection, inbox: ChildInbox, driver: Driver) -> None:
    while True:
        results: list[Generation | Failure] = []
        while not inbox.empty() or not (driver.busy() or results):  # sleeps here when there is nothing to do
            kind, content = inbox.get()
            if kind == "stop":
                _end(0)  # nothing is left to save, and vLLM takes seconds to take itself apart
            if kind == "task":
                driver.begin(content)
            else:
                results += [refusal for prompt in content if (refusal := driver.add(prompt)) is not None]
        if driver.busy():
            results += driver.step()
        pipe.send(("results", results))  # also when empty: it says that the engine is alive


def _receive(pipe: Connection, inbox: ChildInbox) -> None:
    """Empties the pipe at all times, so that neither side ever waits for the other to read."""
    while True:
        try:
            inbox.put(pipe.recv())
        except (EOFError, OSError):  # the run is gone, however it went: nobody wants the answers
            _end(1)


def _end(code: int) -> None:
    """Ends this process, and those that vLLM started on a GPU: nothing else would."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(code)


def _detach(log: Path) -> None:
    """Leaves Ctrl-C to the run, and sends all that vLLM prints to a file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
