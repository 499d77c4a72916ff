"""The engine process: takes prompts from a pipe, drives a model, sends back what finishes.

Messages to it:   ("task", Task), ("prompts", [Prompt]), ("stop", None)
Messages from it: ("ready", EngineInfo), ("failed", sentence), ("results", [Generation | Failure])
"""

from __future__ import annotations

import ctypes
import importlib
import os
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from batchinfer.engines.devices import Placement
from batchinfer.errors import BatchinferError
from batchinfer.records import EngineConfig, EngineInfo, Failure, Generation, Prompt, Task

PR_SET_PDEATHSIG = 1


class Driver(Protocol):
    """What runs inside an engine process; `vllm.VllmDriver` is the one that matters."""

    info: EngineInfo

    def begin(self, task: Task) -> None: ...
    def add(self, prompt: Prompt) -> Failure | None: ...
    def busy(self) -> bool: ...
    def step(self) -> list[Generation | Failure]: ...


def main(pipe: Connection, driver_path: str, config: EngineConfig, placement: Placement, log: Path) -> None:
    """Entry point of the process. Returns only when told to stop; a crash ends the process."""
    _detach_from_terminal(log)
    if not placement.is_cpu:
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-smi counts them
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpu.index for gpu in placement.gpus)
    try:
        module, _, name = driver_path.partition(":")
        driver: Driver = getattr(importlib.import_module(module), name)(config, placement)
        pipe.send(("ready", driver.info))
        _serve(pipe, driver)
    except BatchinferError as exc:
        pipe.send(("failed", str(exc)))


def _serve(pipe: Connection, driver: Driver) -> None:
    inbox: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, inbox), daemon=True).start()
    while True:
        results: list[Generation | Failure] = []
        while not inbox.empty() or not (driver.busy() or results):  # sleeps here when there is nothing to do
            kind, content = inbox.get()
            if kind == "stop":
                return
            if kind == "task":
                driver.begin(content)
            else:
                results += [refusal for prompt in content if (refusal := driver.add(prompt)) is not None]
        if driver.busy():
            results += driver.step()
        pipe.send(("results", results))  # also when empty: it says that the engine is alive


def _receive(pipe: Connection, inbox: queue.SimpleQueue[tuple[str, Any]]) -> None:
    """Empties the pipe at all times, so that neither side ever waits for the other to read."""
    while True:
        try:
            inbox.put(pipe.recv())
        except (EOFError, OSError):  # the run is gone: nobody wants the answers
            os._exit(1)


def _detach_from_terminal(log: Path) -> None:
    """Ctrl-C is the run's to handle; vLLM's chatter belongs in a file; without the run there is no point."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
