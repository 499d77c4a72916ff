"""The engine that a job wants: its own processes, here or on a cluster, or a server that is there already."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from batchinfer.core.home import JobData
from batchinfer.core.records import Info
from batchinfer.engines.devices import hold_free
from batchinfer.engines.pool import EnginePool
from batchinfer.engines.protocol import Engine, EngineConfig
from batchinfer.job.engine_spec import OpenAIBatchSpec, OpenAISpec, RaySpec, VllmSpec
from batchinfer.job.reader import Job, placing


def engine_for(
    job: Job, data: JobData, config: EngineConfig, info: Info, meanwhile: Callable[[], object] = lambda: None, *,
    at_once: bool = False,
) -> contextlib.AbstractContextManager[Engine]:  # fmt: skip
    """Starts the job's engine, of whichever kind it is.

    config: what it is to answer with. at_once: whether somebody waits for the answers, or asks a few at a time, so that a
    server is asked row by row. meanwhile: called while it waits for devices, for the model to load, or for a server
    that answers nothing; what it raises ends the wait.
    """
    spec = job.spec.engine
    if at_once and isinstance(spec, OpenAIBatchSpec):
        spec = spec.row_by_row()
    match spec:
        case VllmSpec():
            return vllm_engine(job, data, spec, config, info, meanwhile)
        case RaySpec():
            return ray_engine(job, data, spec, config, info, meanwhile)
        case OpenAISpec():
            from batchinfer.engines.openai import openai_engine

            return openai_engine(job, spec, config, info, meanwhile)
        case OpenAIBatchSpec():
            from batchinfer.engines.openai_batch import openai_batch_engine

            return openai_batch_engine(job, data, spec, config, info, meanwhile)


@contextlib.contextmanager
def vllm_engine(
    job: Job, data: JobData, spec: VllmSpec, config: EngineConfig, info: Info, meanwhile: Callable[[], object] = lambda: None
) -> Iterator[Engine]:  # fmt: skip
    """Starts vLLM on this machine's devices, once they are free."""
    config = replace(config, tensor_parallel=spec.tensor_parallel)
    with _log(data) as log, contextlib.ExitStack() as stack:
        began = time.monotonic()
        with placing(job):
            devices = hold_free(spec.replicas, spec.tensor_parallel, f"batchinfer job {job.name}", info, meanwhile)
            placements = stack.enter_context(devices)
        pool = EnginePool(
            config, placements, log, stall_seconds=spec.stall.total_seconds(), info=info, meanwhile=meanwhile,
            waited=time.monotonic() - began,
        )  # fmt: skip
        with pool:
            yield pool


@contextlib.contextmanager
def ray_engine(
    job: Job, data: JobData, spec: RaySpec, config: EngineConfig, info: Info, meanwhile: Callable[[], object]
) -> Iterator[Engine]:
    """Starts vLLM on the nodes of a cluster; the first engine that is ready begins."""
    from batchinfer.engines.ray import ClusterRoom, RayCluster

    config = replace(config, tensor_parallel=spec.tensor_parallel)
    with _log(data) as log, contextlib.ExitStack() as stack:
        with placing(job):
            cluster = stack.enter_context(RayCluster(spec.address, log, meanwhile))
        room = ClusterRoom(spec, cluster, info)

        def waiting() -> None:
            meanwhile()
            with placing(job):
                room.wait()

        pool = EnginePool(
            config, room.places, log, launch=cluster.launch, stall_seconds=spec.stall.total_seconds(), info=info,
            meanwhile=waiting, least=1,
        )  # fmt: skip
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
