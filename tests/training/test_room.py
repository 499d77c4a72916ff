"""Whether the memory is enough for a training, before it begins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchinfer.engines.devices import Gpu, Placement
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
    found = needed_memory(str(model), FinetuneSpec.model_validate(settings), longest)
    assert found is not None
    return found


def test_what_counts(model: Path) -> None:
    """Weights in float32, and more for more rows at a time, longer ones, and a higher rank."""
    least = needed(model, batch=1)
    assert BASIS + 2 * WEIGHTS < least < BASIS + 2 * WEIGHTS + GIB
    assert needed(model, batch=8) - least > 6 * (least - BASIS - 2 * WEIGHTS) / 2
    assert needed(model, 200) > needed(model) > least
    assert needed(model, rank=64) > needed(model)


def test_a_training_that_would_not_fit_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With both figures and what to do; on a GPU its own memory counts."""
    monkeypatch.setattr(room, "free_memory", lambda: 2 * GIB)
    spec = FinetuneSpec(batch=64)
    with pytest.raises(
        ModelError, match=r"needs about \d+\.\d GiB of memory, and 2\.0 GiB are free: set finetune\.batch lower"
    ):
        check_room(str(model), spec, 500, CPU)
    check_room(str(model), FinetuneSpec(batch=1), 100, CPU)
    small, unknown = (Placement((Gpu("0", "GPU-0", "a card", mib),)) for mib in (1024, 0))
    with pytest.raises(ModelError, match=r"1\.0 GiB are on a card"):
        check_room(str(model), spec, 100, small)
    check_room(str(model), spec, 100, unknown)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"hidden_size": "large"}'])
def test_a_model_that_says_too_little_is_not_guessed_at(model: Path, content: str) -> None:
    """Nor one whose files are not on this machine."""
    (model / "config.json").write_text(content, encoding="utf-8")
    assert needed_memory(str(model), FinetuneSpec(), 100) is None
    assert needed_memory("org/name", FinetuneSpec(), 100) is None
    check_room("org/name", FinetuneSpec(), 100, CPU)
