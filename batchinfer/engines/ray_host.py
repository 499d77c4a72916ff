"""On a node of a Ray cluster: what hosts an engine process there, and hands its messages through."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchinfer.core.locks import lock, machine_wide
from batchinfer.engines.devices import Placement, find_gpus
from batchinfer.engines.digests import folder_digest
from batchinfer.engines.process import EngineEnded, LocalProcess, launch_here
from batchinfer.engines.protocol import EngineConfig
from batchinfer.errors import BatchinferError, ModelError, StoreError, counted

GATHER_SECONDS = 0.05  # in which answers are gathered, so that each iteration of an engine is not a call of its own
TAIL_BYTES = 20_000  # of what an engine printed before it failed
LAST_WORDS = ("failed", "ended", "lost")  # kinds of messages after which an engine says no more
PipeMessage = tuple[str, Any]


class EngineHost:
    """A Ray actor; each call comes from another process. Its engine is a process beside it, as on one machine.

    So an engine that dies is told apart from a node that is lost, and takes nothing along that Ray needs.
    """

    def __init__(self) -> None:
        self._claims = contextlib.ExitStack()  # held until this process ends
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - without a name: nothing is left of it, however this ends
        self._process: LocalProcess | None = None
        self._refusal = ""

    def load(self, driver: str, config: EngineConfig, wanted: Placement, digests: Mapping[str, str]) -> str:
        """Starts the engine; what is against it is received later. The id of this node.

        wanted: how many GPUs or cores. digests: of the folders that must lie here as they do where the job runs.
        """
        import ray

        try:
            check_folders(digests)
            log = Path(f"/proc/{os.getpid()}/fd/{self._log.fileno()}")
            self._process = launch_here(driver, config, self._placed(wanted), log)
        except BatchinferError as exc:
            self._refusal = str(exc)
        return str(ray.get_runtime_context().get_node_id())

    def _placed(self, wanted: Placement) -> Placement:
        """The GPUs that Ray gave to this process, or cores that no other engine here has."""
        if wanted.is_cpu:
            return Placement(cores=_claim_cores(len(wanted.cores), self._claims))
        if given := ray_gpus():
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(given)  # which Ray does not set where it was told not to
        gpus = find_gpus()  # of those alone
        for gpu in gpus:
            if holder := self._claims.enter_context(lock(machine_wide(gpu.uuid), "an engine of Ray")):
                raise StoreError(
                    f"{gpu.name} is in use by {holder}", fix="wait for it, or leave that GPU out of Ray's."
                )
        if len(gpus) != len(wanted.gpus):
            said = f"Ray gave the engine {counted(len(wanted.gpus), 'GPU')}, but nvidia-smi shows {len(gpus)} there"
            raise StoreError(said, fix="start Ray there with the GPUs that there are.")
        return Placement(gpus=tuple(gpus))

    def send(self, kind: str, content: Any) -> None:
        """Hands the engine a message."""
        if self._process is not None:
            self._process.send(kind, content)

    def receive(self) -> list[PipeMessage]:
        """Waits for messages of the engine: the next one, and the answers that follow closely."""
        messages, end = [self._next()], time.monotonic() + GATHER_SECONDS
        while messages[-1][0] == "results" and self._has_more(end - time.monotonic()):
            messages.append(self._next())
        last, results = messages[-1], [result for kind, content in messages if kind == "results" for result in content]
        if last[0] == "results":
            return [("results", results)]
        return [("results", results), *self._printed(last), last]

    def end(self) -> None:
        """Ends the engine and what it started. Ray would end the engine alone, and vLLM's own processes keep their GPU then."""
        if self._process is not None and not self._process.pipe.closed:
            self._process.kill()

    def _next(self) -> PipeMessage:
        if self._process is None:
            return "failed", self._refusal
        try:
            return self._process.receive()
        except EngineEnded as ended:
            self.end()
            # A machine that is shut down in order ends all processes so, and its actors moments later.
            return "lost" if ended.code == -signal.SIGTERM else "ended", str(ended)

    def _has_more(self, seconds: float) -> bool:
        """Whether the engine says something else in so many seconds."""
        return seconds > 0 and self._process is not None and self._process.ready.poll(seconds)

    def _printed(self, last: PipeMessage) -> list[PipeMessage]:
        """The end of what an engine printed that says no more."""
        if last[0] not in LAST_WORDS:
            return []
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - TAIL_BYTES))
        return [("printed", self._log.read().decode(errors="replace"))]


def ray_gpus() -> list[str]:
    """The ids of the GPUs that Ray gave to this process."""
    import ray

    return [str(each) for each in ray.get_runtime_context().get_accelerator_ids().get("GPU", [])]


def check_folders(digests: Mapping[str, str]) -> None:
    """Raises ModelError for a folder that is not here, or holds something else than where the job runs."""
    for folder, digest in digests.items():
        path = Path(folder)
        if not path.is_dir():
            raise ModelError(
                f"{folder} is not there: put the model on a disk that all nodes share, at the same path, or name it by its hub id."
            )
        if folder_digest(path) != digest:
            raise ModelError(f"{folder} holds other files there than where the job runs: copy it again.")


def _claim_cores(count: int, claims: contextlib.ExitStack) -> tuple[int, ...]:
    """Cores for an engine of its own, as far as there are enough: Ray counts them only."""
    cores = sorted(os.sched_getaffinity(0))
    free = list[int]()
    for core in cores:
        if len(free) < count and claims.enter_context(lock(machine_wide(f"core-{core}"), "an engine of Ray")) is None:
            free.append(core)
    return tuple(free) if len(free) == count else tuple(cores[:count])
