"""The engine that a job wants, on this machine's devices."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from batchinfer.core.home import JobData
from batchinfer.core.records import Info
from batchinfer.engines.devices import hold_free
from batchinfer.engines.pool import EnginePool
from batchinfer.engines.protocol import Engine, EngineConfig
from batchinfer.job.reader import Job, placing


@contextlib.contextmanager
def engine_for(
    job: Job, data: JobData, config: EngineConfig, info: Info, meanwhile: Callable[[], object] = lambda: None
) -> Iterator[Engine]:
    """Starts the job's engine on this machine's devices, once they are free.

    meanwhile: called while it waits for them, and for the model to load; what it raises ends the wait.
    """
    spec = job.spec.engine
    with _log(data) as log, contextlib.ExitStack() as held:
        with placing(job):
            devices = hold_free(spec.replicas, spec.tensor_parallel, f"batchinfer job {job.name}", info, meanwhile)
            placements = held.enter_context(devices)
        pool = EnginePool(
            config, placements, log, stall_seconds=spec.stall.total_seconds(), info=info, meanwhile=meanwhile
        )
        with pool:
            yield pool


@contextlib.contextmanager
def _log(data: JobData) -> Iterator[Path]:
    """The empty file that the engine prints to: in the job's folder, or a temporary one, kept if the engine fails."""
    if data.is_writable:
        data.logs.mkdir(exist_ok=True)
        log = data.logs / "engine.log"
        log.write_bytes(b"")
        yield log
        return
    handle, name = tempfile.mkstemp(prefix="batchinfer-engine-", suffix=".log")
    os.close(handle)
    yield Path(name)
    Path(name).unlink(missing_ok=True)
