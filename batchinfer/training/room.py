"""How much memory a training needs, before it begins: an estimate from the model's own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from batchinfer.core.memory import free_memory
from batchinfer.engines.devices import Placement
from batchinfer.errors import ModelError
from batchinfer.job.finetune_spec import FinetuneSpec

FLOAT, STATE = 4, 16  # bytes of a number, and of one that is trained: itself, its gradient and two of the optimizer's
SIZES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}  # bytes of a number in the model's file
PER_HIDDEN, PER_INNER, PER_PLACE = 14, 6, 2  # numbers kept of a token for its gradient, in a layer
BASIS = 1 << 30  # of torch and its libraries
GIB = 1 << 30


def needed_memory(source: str, spec: FinetuneSpec, longest: int) -> int | None:
    """About how many bytes a training takes at its height; None where the model's files are not here, or say too little.

    source: the folder of the model. longest: tokens of the longest row.
    """
    folder = Path(source)
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        config: dict[str, Any] = content.get("text_config") or content
        hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
        inner, heads = int(config.get("intermediate_size", 4 * hidden)), int(config.get("num_attention_heads", 1))
        vocabulary = int(config["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    kind = str(content.get("dtype") or content.get("torch_dtype") or "bfloat16")
    if not size:
        return None
    weights = size // SIZES.get(kind, 2) * FLOAT
    trained = layers * spec.rank * (8 * hidden + 3 * (hidden + inner)) * STATE
    kept = layers * (PER_HIDDEN * hidden + PER_INNER * inner + PER_PLACE * heads * longest)
    return BASIS + weights + trained + spec.batch * (longest * kept + 4 * vocabulary) * FLOAT


def check_room(source: str, spec: FinetuneSpec, longest: int, placement: Placement) -> None:
    """Raises ModelError where a training would surely run out of memory."""
    needed = needed_memory(source, spec, longest)
    free = free_memory() if placement.is_cpu else placement.gpus[0].memory_mib << 20
    if needed is None or not free or needed <= free:
        return
    where = "are free" if placement.is_cpu else f"are on {placement.gpus[0].name}"
    raise ModelError(
        f"The training needs about {needed / GIB:.1f} GiB of memory, and {free / GIB:.1f} GiB {where}",
        fix="set finetune.batch lower, shorten the prompt, or take a smaller model.",
    )
