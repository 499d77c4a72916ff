"""The devices that a model can run on, GPUs or all cores of the CPU, and whose turn it is to use them."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from batchinfer.core.cost import Devices
from batchinfer.core.locks import lock, lock_in_turn, machine_wide
from batchinfer.core.records import Info
from batchinfer.errors import Busy, StoreError, UsageError, counted

SMI_SECONDS = 30.0  # that nvidia-smi has to answer
LOOKING_SECONDS = 1.0  # between two looks whether GPUs are free
PATIENCE_SECONDS = 24 * 3600.0  # for a device: what another job does there may take hours


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU that this process may see.

    index: as in CUDA_VISIBLE_DEVICES.
    uuid: names its lock.
    name: of the product.
    memory_mib: 0 if unknown.
    """

    index: str
    uuid: str
    name: str
    memory_mib: int


@dataclass(frozen=True, slots=True)
class Placement:
    """The devices of one engine process.

    gpus: none on a machine without.
    cores: CPU cores, where there are no GPUs.
    """

    gpus: tuple[Gpu, ...] = ()
    cores: tuple[int, ...] = ()

    @property
    def is_cpu(self) -> bool:
        return not self.gpus

    @property
    def description(self) -> str:
        if self.is_cpu:
            return f"{counted(len(self.cores), 'CPU core')}"
        return " + ".join(gpu.name for gpu in self.gpus)

    @property
    def locks(self) -> tuple[str, ...]:
        """Names of the machine-wide locks that an engine here needs."""
        return tuple(gpu.uuid for gpu in self.gpus) or ("cpu",)


def find_gpus() -> list[Gpu]:
    """The NVIDIA GPUs of this machine that CUDA_VISIBLE_DEVICES allows, without loading torch.

    Raises StoreError where their driver does not answer.
    """
    if shutil.which("nvidia-smi") is None:
        return []
    fields = "--query-gpu=index,uuid,name,memory.total"
    asked = ["nvidia-smi", fields, "--format=csv,noheader,nounits"]
    try:
        listing = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=SMI_SECONDS)
    except subprocess.TimeoutExpired as exc:
        said = f"nvidia-smi did not answer within {SMI_SECONDS:g} s, so nobody knows which GPUs there are"
        raise StoreError(said, fix="restart the driver of the GPUs, or the machine.") from exc
    if listing.returncode != 0:
        return []
    gpus = []
    for line in listing.stdout.splitlines():
        index, uuid, name, memory = (part.strip() for part in line.split(",", 3))
        gpus.append(Gpu(index, uuid, name, int(memory) if memory.isdigit() else 0))
    return _visible(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))


@functools.cache
def machine_name() -> str:
    """The devices of this machine in words: a model is as fast on one of which it says the same."""
    if gpus := find_gpus():
        return " + ".join(f"{count} {name}" for name, count in sorted(Counter(gpu.name for gpu in gpus).items()))
    return f"{counted(len(os.sched_getaffinity(0)), 'core')} of {_processor()}"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def free_gpu_memory(gpu: Gpu) -> int:
    """Bytes of a GPU that nobody uses now; all that it has where the driver does not tell, and 0 if that is unknown, too."""
    asked = ["nvidia-smi", f"--id={gpu.uuid}", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=30).stdout.strip()
        if said.isdigit():
            return int(said) << 20
    return gpu.memory_mib << 20


def _visible(gpus: list[Gpu], allowed: str | None) -> list[Gpu]:
    if allowed is None:
        return gpus
    wanted = [part.strip() for part in allowed.split(",") if part.strip()]
    # CUDA takes the start of an id too, as long as it says that it is one.
    return [
        gpu for want in wanted for gpu in gpus
        if want == gpu.index or (want.startswith("GPU-") and gpu.uuid.startswith(want))
    ]  # fmt: skip


def place(replicas: int | str, tensor_parallel: int, gpus: list[Gpu], cores: list[int]) -> list[Placement]:
    """A placement for each replica: a group of `tensor_parallel` GPUs, or an equal share of the cores.

    replicas: a number, or "auto": one per group of GPUs; on CPU one. Raises UsageError if it does not fit.
    """
    if not gpus:
        if tensor_parallel > 1:
            said = f"{counted(tensor_parallel, 'GPU')} are asked for, but this machine has none: remove the setting."
            raise UsageError(said, field=("engine", "tensor_parallel"))
        count = 1 if replicas == "auto" else int(replicas)
        if count > len(cores):
            said = f"{counted(count, 'replica')} are asked for, but there are only {counted(len(cores), 'CPU core')}: use fewer."
            raise UsageError(said, field=("engine", "replicas"))
        share = len(cores) // count
        return [Placement(cores=tuple(cores[i * share : (i + 1) * share])) for i in range(count)]
    groups = [tuple(gpus[i : i + tensor_parallel]) for i in range(0, len(gpus) - tensor_parallel + 1, tensor_parallel)]
    count = len(groups) if replicas == "auto" else int(replicas)
    if not groups or count > len(groups):
        needed = tensor_parallel * max(count, 1)
        raise UsageError(
            f"The job asks for {counted(max(count, 1), 'replica')} on {counted(tensor_parallel, 'GPU')} each, {needed} in all, "
            f"but {len(gpus)} can be seen: lower engine.replicas or engine.tensor_parallel.",
            field=("engine", "tensor_parallel" if replicas == "auto" else "replicas"),
        )
    return [Placement(gpus=group) for group in groups[:count]]


def devices_of(placements: list[Placement]) -> Devices:
    """What engines at these places hold."""
    gpus = sum(len(placement.gpus) for placement in placements)
    return Devices("gpu", gpus) if gpus else Devices("cpu", 1)


def place_here(replicas: int | str, tensor_parallel: int) -> list[Placement]:
    """`place` on this machine as it is."""
    return place(replicas, tensor_parallel, find_gpus(), sorted(os.sched_getaffinity(0)))


@contextlib.contextmanager
def hold_free(
    replicas: int | str, tensor_parallel: int, doing: str, info: Info, meanwhile: Callable[[], object] = lambda: None
) -> Iterator[list[Placement]]:
    """Holds devices for so many replicas, and gives their places: on whichever GPUs no other job holds, waiting for enough.

    meanwhile: called while it waits; what it raises ends the wait. Raises UsageError where they never fit.
    """
    gpus, cores = find_gpus(), sorted(os.sched_getaffinity(0))
    wanted = place(replicas, tensor_parallel, gpus, cores)
    needed = sum(len(placement.gpus) for placement in wanted)
    if needed == len(gpus):  # all of them, or there are none
        with hold(wanted, doing, info, meanwhile):
            yield wanted
        return
    deadline, told = time.monotonic() + PATIENCE_SECONDS, False
    while True:
        with contextlib.ExitStack() as stack:
            free, holder = _take_free(gpus, needed, doing, stack)
            if len(free) == needed:
                yield place(replicas, tensor_parallel, free, cores)
                return
        if time.monotonic() > deadline:
            raise Busy(
                f"Too few GPUs are free, and one is in use by {holder}: wait for it, or stop it, then try again."
            )
        if not told:
            info(f"Waiting for {counted(needed, 'GPU')} of {len(gpus)}; one is used by {holder} ...")
            told = True
        meanwhile()
        time.sleep(LOOKING_SECONDS)


def _take_free(gpus: list[Gpu], needed: int, doing: str, stack: contextlib.ExitStack) -> tuple[list[Gpu], str]:
    """GPUs that nobody holds, at most as many as are needed, which `stack` holds now; and who holds another one."""
    free, holder = list[Gpu](), ""
    for gpu in gpus:
        if len(free) < needed:
            other = stack.enter_context(lock(machine_wide(gpu.uuid), doing))
            free += [gpu] if other is None else []
            holder = other or holder
    return free, holder


@contextlib.contextmanager
def hold(
    placements: list[Placement], doing: str, info: Info, meanwhile: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Holds the machine-wide lock of every device in `placements`, waiting for other jobs and naming them.

    meanwhile: called while it waits; what it raises ends the wait.
    """
    with contextlib.ExitStack() as stack:
        for name in sorted({name for placement in placements for name in placement.locks}):
            device = "the CPU" if name == "cpu" else f"GPU {name}"
            path = machine_wide(name)  # jobs of all users share the devices
            waiting = lock_in_turn(path, doing, name=device, info=info, patience=PATIENCE_SECONDS, meanwhile=meanwhile)
            stack.enter_context(waiting)
        yield
