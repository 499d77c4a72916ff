"""Whether a LoRA adapter can be loaded with its base model, as far as their files say without loading either."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from batchinfer.core.files import UNREAD, open_plain, read_small, why_unread
from batchinfer.core.home import JobData
from batchinfer.engines import bundled
from batchinfer.engines.models import ModelIdentity

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PROVENANCE = "provenance.json"  # what `batchinfer finetune` notes of how it came to be; others' adapters have none
OTHER_WEIGHTS = ("adapter_model.bin", "adapter_model.pt")
MOST_RANK = 512
# bytes; those of adapters have some KB; a safetensors file says how long its header is, and a damaged one says anything
MOST_HEADER = 16 << 20
UNSUPPORTED = (
    "use_dora", "lora_bias", "alora_invocation_tokens", "layer_replication", "use_bdlora", "use_qalora", "modules_to_save",
)  # fmt: skip
PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")  # those that leave the base model's weights alone
READS_HIDDEN = re.compile(r"\.(q_proj|k_proj|v_proj|gate_proj|up_proj)\.lora_A\.")  # their input is the hidden state
MODULE = re.compile(r"\.(\w+)\.lora_(?:embedding_)?A")
LAST_LAYER = "lm_head"
LAYER = re.compile(r"\.layers\.(\d{1,9})\.")


def adapter_modules(folder: str | None) -> tuple[str, ...]:
    """What an adapter changes, by the last part of its name, such as q_proj, as vLLM is to make ready for it.

    Nothing where that is not known, and for experts, whose names in files are other ones than vLLM's.
    """
    shapes = {} if folder is None else _shapes(Path(folder) / WEIGHTS) or {}
    if any(".experts." in name for name in shapes):
        return ()
    return tuple(sorted({found[1] for name in shapes if (found := MODULE.search(name))}))


def scoring_fault(folder: str) -> str | None:
    """Why vLLM could not score whole choices or texts with this adapter; None if it can."""
    modules = adapter_modules(folder)
    if modules and LAST_LAYER not in modules:
        return None
    does = "this one does" if modules else "this one may"
    return (
        f"vLLM cannot score whole choices or texts with an adapter that changes the model's last layer ({LAST_LAYER}), as {does}: train it "
        "without that layer, or name choices whose first tokens differ."
    )


def adapter_faults(identity: ModelIdentity, data: JobData) -> list[str]:
    """A sentence for each reason why the model's adapter will not load; none where there is no adapter."""
    if identity.adapter is None:
        return []
    folder = Path(identity.adapter)
    try:
        config = json.loads(read_small(folder / CONFIG))
    except (OSError, ValueError, RecursionError) as exc:
        return [f"{folder / CONFIG} cannot be read: {why_unread(exc)}."]
    if not isinstance(config, dict):
        return [f"{folder / CONFIG} holds no JSON object."]
    faults = [*_base_faults(folder / PROVENANCE, identity), *_config_faults(config)]
    if (folder / WEIGHTS).is_file():
        return faults + list(
            _weight_faults(folder / WEIGHTS, config, _base_config(identity, data), identity.base_label)
        )
    if not any((folder / name).is_file() for name in OTHER_WEIGHTS):
        faults.append(f"{folder} has no weights: there is no {WEIGHTS} in it.")
    return faults


def _base_faults(path: Path, identity: ModelIdentity) -> Iterator[str]:
    """That the base model is another one than the adapter was trained on, where that is known."""
    try:
        base = json.loads(read_small(path))["base"]
        digest, model = base["digest"], base["model"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError) as exc:
        yield f"{path} cannot be read: {why_unread(exc)}."
        return
    except (KeyError, TypeError):
        yield f"{path} does not say which base model the adapter is of."
        return
    if digest != identity.digest:
        yield (
            f"it was trained on other weights of its base model, {model}, than {identity.base_label} has now: train it again with "
            "batchinfer finetune, or put the base model back that it was trained on."
        )


def _config_faults(config: Mapping[str, Any]) -> Iterator[str]:
    kind, rank = str(config.get("peft_type", "LORA")), config.get("r")
    if kind.upper() != "LORA":
        yield f"it is an adapter of the type {kind}, and vLLM loads LORA alone."
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        yield f"r in {CONFIG} is {rank!r}, and must be a whole number above 0."
    elif rank > MOST_RANK:
        yield f"its rank r is {rank}, and vLLM takes {MOST_RANK} at most: train it with a lower one."
    if not isinstance(config.get("lora_alpha"), int | float):
        yield f"lora_alpha is missing in {CONFIG}."
    if config.get("bias", "none") != "none":
        yield "it trains biases (bias in its config), which vLLM does not load: train it with bias none."
    for name in UNSUPPORTED:
        if config.get(name):
            yield f"it has {name}, which vLLM does not support: save it as a plain LoRA adapter."
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in PLAIN_INITS:
        yield f"it was made with init_lora_weights {init}, which changes the base model: convert it to a plain LoRA adapter."


def _weight_faults(path: Path, config: Mapping[str, Any], base: Mapping[str, Any] | None, label: str) -> Iterator[str]:
    """The faults of a file of weights: damaged, of another rank than it says, or of another base model."""
    shapes = _shapes(path)
    if shapes is None:
        yield f"{path} is truncated or corrupt: copy it again."
        return
    ranks = {name: shape for name, shape in shapes.items() if ".lora_A." in name and len(shape) == 2}  # noqa: PLR2004 - a matrix
    if not ranks:
        yield f"{path} holds no LoRA weights."
        return
    rank = config.get("r")
    other = {shape[0] for shape in ranks.values()} - {rank}
    if other and not config.get("rank_pattern"):
        yield f"its weights have the rank {min(other)}, and {CONFIG} says {rank}."
    if base is None:
        return
    layers, hidden = base.get("num_hidden_layers"), base.get("hidden_size")
    last = max((int(found[1]) for name in ranks if (found := LAYER.search(name))), default=-1)
    if isinstance(layers, int) and last >= layers:
        yield f"it was made for another base model: it has weights for layer {last}, and {label} has {layers} layers."
    wide = {shape[1] for name, shape in ranks.items() if READS_HIDDEN.search(name)}
    if isinstance(hidden, int) and wide and wide != {hidden}:
        yield f"it was made for another base model: its layers are {max(wide)} wide, and those of {label} {hidden}."


def _shapes(path: Path) -> dict[str, list[int]] | None:
    """The shape of each tensor of a safetensors file, by its header; None for one that is not whole."""
    try:
        with open_plain(path) as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > MOST_HEADER:
                return None
            header: dict[str, Any] = json.loads(file.read(length))
        tensors = {name: facts for name, facts in header.items() if name != "__metadata__"}
        end = max((facts["data_offsets"][1] for facts in tensors.values()), default=0)
        if path.stat().st_size < 8 + length + end:
            return None
        return {name: [_size(size) for size in facts["shape"]] for name, facts in tensors.items()}
    except UNREAD:
        return None


def _size(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no size")
    return value


def _base_config(identity: ModelIdentity, data: JobData) -> dict[str, Any] | None:
    """The base model's config.json, where it is on this machine."""
    path = _config_path(identity, data)
    try:
        content = json.loads(read_small(path)) if path is not None else None
    except (OSError, ValueError, RecursionError):
        return None
    inner = content.get("text_config", content) if isinstance(content, dict) else None  # of a model that also sees
    return inner if isinstance(inner, dict) else None


def _config_path(identity: ModelIdentity, data: JobData) -> Path | None:
    if identity.source.startswith(bundled.PREFIX):
        places = [bundled.folder(place, identity.digest) for place in (data.models, bundled.shared_folder())]
        return next((place / "config.json" for place in places if place.is_dir()), None)
    if identity.revision is None:
        return Path(identity.source) / "config.json"
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    found = try_to_load_from_cache(identity.source, "config.json", revision=identity.revision)
    return Path(found) if isinstance(found, str) else None
