"""Whether the memory is enough for a training, before it begins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchinfer.engines.devices import Gpu, Placement, free_gpu_memory
from batchinfer.errors import ModelError
from batchinfer.job.finetune_spec import FinetuneSpec
from batchinfer.training import room
from batchinfer.training.room import BASIS, GIB, check_room, needed_memory

CONFIG = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "vocab_size": 49152,
    "dtype": "bfloat16",
}  # fmt: skip
WEIGHTS = 270_000_000  # bytes in bfloat16
CPU = Placement(cores=(0, 1))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(WEIGHTS)
    return tmp_path


def needed(model: Path, longest: int = 100, **settings: int) -> int:
    found = needed_memory(model, FinetuneSpec.model_validate(settings), longest)
    assert found is not None
    return found


def test_what_counts(model: Path) -> None:
    """Weights in float32, and more for more rows at a time, longer ones, and a higher rank."""
    least = needed(model, batch=1)
    assert BASIS + 2 * WEIGHTS < least < BASIS + 2 * WEIGHTS + GIB
    assert needed(model, batch=8) - least > 6 * (least - BASIS - 2 * WEIGHTS) / 2
    assert needed(model, 200) > needed(model) > least
    assert needed(model, rank=64) > needed(model)


def gpu(mib: int) -> Placement:
    return Placement((Gpu("0", "GPU-0", "a card", mib),))


def test_what_would_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With both figures and what to do; on a GPU what is free there counts."""
    monkeypatch.setattr(room, "free_memory", lambda: 2 * GIB)
    said = r"The training needs about 3\.0 GiB of memory, and 2\.0 GiB are free: set finetune\.batch lower"
    with pytest.raises(ModelError, match=said):
        check_room(3 * GIB, CPU, "The training", "set finetune.batch lower.")
    check_room(2 * GIB, CPU, "The training", "")
    check_room(None, CPU, "The training", "")
    monkeypatch.setattr(room, "free_gpu_memory", lambda gpu: gpu.memory_mib << 20)
    with pytest.raises(ModelError, match=r"1\.0 GiB are free on a card"):
        check_room(2 * GIB, gpu(1024), "The training", "")
    check_room(2 * GIB, gpu(0), "The training", "")


@pytest.mark.parametrize(("says", "free"), [("echo 512", 512), ("echo '[N/A]'", 1024), ("exit 9", 1024), (None, 1024)])
def test_what_others_use_of_a_gpu_is_not_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str | None, free: int
) -> None:
    """Its driver is asked; where that does not tell, all that the GPU has counts."""
    if says is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{says}\n", encoding="utf-8")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if says else str(tmp_path))
    assert free_gpu_memory(gpu(1024).gpus[0]) == free << 20


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"hidden_size": "large"}'])
def test_a_model_that_says_too_little_is_not_guessed_at(model: Path, content: str) -> None:
    """Nor one whose files are not on this machine."""
    (model / "config.json").write_text(content, encoding="utf-8")
    assert needed_memory(model, FinetuneSpec(), 100) is None
    assert needed_memory(None, FinetuneSpec(), 100) is None
