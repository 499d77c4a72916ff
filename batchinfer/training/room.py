"""How much memory a training or a merge needs, before it begins: an estimate from the model's own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from batchinfer.core.files import UNREAD, read_small
from batchinfer.core.memory import free_memory
from batchinfer.engines.devices import Placement, free_gpu_memory
from batchinfer.errors import ModelError
from batchinfer.job.finetune_spec import FinetuneSpec

CONFIG = "config.json"
FLOAT, STATE = 4, 16  # bytes of a number, and of one that is trained: itself, its gradient and two of the optimizer's
SIZES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}  # bytes of a number in the model's file
PER_HIDDEN, PER_INNER, PER_PLACE = 14, 6, 2  # numbers kept of a token for its gradient, in a layer
BASIS = 1 << 30  # of torch and its libraries
GIB = 1 << 30


def needed_memory(folder: Path | None, spec: FinetuneSpec, longest: int) -> int | None:
    """About how many bytes a training takes at its height; None where the model's files are not here, or say too little.

    folder: of the model. longest: tokens of the longest row.
    """
    weights = weights_memory(folder)
    if folder is None or weights is None:
        return None
    try:
        content = json.loads(read_small(folder / CONFIG))
        config: dict[str, Any] = content.get("text_config") or content
        hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
        inner, heads = int(config.get("intermediate_size", 4 * hidden)), int(config.get("num_attention_heads", 1))
        vocabulary = int(config["vocab_size"])
    except UNREAD:
        return None
    trained = layers * spec.rank * (8 * hidden + 3 * (hidden + inner)) * STATE
    kept = layers * (PER_HIDDEN * hidden + PER_INNER * inner + PER_PLACE * heads * longest)
    return weights + trained + spec.batch * (longest * kept + 4 * vocabulary) * FLOAT


def weights_memory(folder: Path | None) -> int | None:
    """Bytes that a process takes which has the model in float32; None where its files are not here, or say too little."""
    if folder is None:
        return None
    try:
        content = json.loads(read_small(folder / CONFIG))
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        kind = str(content.get("dtype") or content.get("torch_dtype") or "bfloat16")
    except UNREAD:
        return None
    return BASIS + size // SIZES.get(kind, 2) * FLOAT if size else None


def check_room(needed: int | None, placement: Placement, doing: str, fix: str) -> None:
    """Raises ModelError where something would surely run out of memory.

    needed: bytes; None where nobody knows. doing: what needs them, as the beginning of a sentence. fix: what to do.
    """
    free = free_memory() if placement.is_cpu else free_gpu_memory(placement.gpus[0])
    if needed is None or not free or needed <= free:
        return
    where = "are free" if placement.is_cpu else f"are free on {placement.gpus[0].name}"
    raise ModelError(f"{doing} needs about {needed / GIB:.1f} GiB of memory, and {free / GIB:.1f} GiB {where}", fix=fix)
