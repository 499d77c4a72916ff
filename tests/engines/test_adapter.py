"""What an adapter's files say of whether it will load."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from batchinfer.core.home import JobData
from batchinfer.engines import digests
from batchinfer.engines.adapter import adapter_faults, adapter_modules, scoring_fault
from batchinfer.engines.digests import folder_digest
from batchinfer.engines.models import ModelIdentity

CONFIG = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none", "target_modules": ["q_proj"]}
BASE = {"num_hidden_layers": 2, "hidden_size": 32}


def shapes(*, rank: int = 8, hidden: int = 32, layers: int = 2, module: str = "q_proj") -> dict[str, list[int]]:
    """The tensors of an adapter."""
    names = [f"base_model.model.model.layers.{layer}.self_attn.{module}" for layer in range(layers)]
    pairs = [(f"{name}.lora_A.weight", [rank, hidden]) for name in names]
    return dict(pairs + [(f"{name}.lora_B.weight", [hidden, rank]) for name in names])


def safetensors(tensors: dict[str, list[int]]) -> bytes:
    """A file of zeros in the safetensors format."""
    header, end = dict[str, Any](), 0
    for name, shape in tensors.items():
        size = 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter that loads, beside the base model that it is for."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(BASE))
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    (folder / "adapter_model.safetensors").write_bytes(safetensors(shapes()))
    return folder


def faults(adapter: Path | None) -> list[str]:
    identity = ModelIdentity(
        str((adapter or Path()).parent / "base"), None, "0", "./base", None if adapter is None else str(adapter), "1"
    )
    return adapter_faults(identity, JobData(Path("/nowhere"), "shop"))


def test_what_it_changes(adapter: Path) -> None:
    """By the last parts of its weights' names; of experts, and of what is not there, nobody knows."""
    weights = adapter / "adapter_model.safetensors"
    assert adapter_modules(None) == ()
    assert adapter_modules(str(adapter)) == ("q_proj",)
    assert scoring_fault(str(adapter)) is None
    weights.write_bytes(safetensors(shapes() | shapes(module="mlp.experts.0.gate_proj")))
    assert adapter_modules(str(adapter)) == ()
    assert "(lm_head), as this one may:" in str(scoring_fault(str(adapter)))
    head = {"base_model.model.lm_head.lora_A.weight": [8, 32], "base_model.model.lm_head.lora_B.weight": [99, 8]}
    weights.write_bytes(safetensors(shapes() | head))
    assert adapter_modules(str(adapter)) == ("lm_head", "q_proj")
    assert "(lm_head), as this one does:" in str(scoring_fault(str(adapter)))
    weights.unlink()
    assert adapter_modules(str(adapter)) == ()


def test_a_good_adapter_has_none(adapter: Path) -> None:
    """Nor has a job without one."""
    assert faults(adapter) == []
    assert faults(None) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"peft_type": "IA3"}, "it is an adapter of the type IA3, and vLLM loads LORA alone."),
        ({"r": 0}, "r in adapter_config.json is 0, and must be a whole number above 0."),
        ({"r": "8"}, "r in adapter_config.json is '8', and must be a whole number above 0."),
        ({"r": None}, "r in adapter_config.json is None, and must be a whole number above 0."),
        ({"r": 1024, "rank_pattern": {"q_proj": 8}}, "its rank r is 1024, and vLLM takes 512 at most: train it with a lower one."),
        ({"r": 16}, "its weights have the rank 8, and adapter_config.json says 16."),
        ({"lora_alpha": None}, "lora_alpha is missing in adapter_config.json."),
        ({"bias": "all"}, "it trains biases (bias in its config), which vLLM does not load: train it with bias none."),
        ({"use_dora": True}, "it has use_dora, which vLLM does not support: save it as a plain LoRA adapter."),
        ({"modules_to_save": ["lm_head"]}, "it has modules_to_save, which vLLM does not support: save it as a plain LoRA adapter."),
        ({"init_lora_weights": "pissa_niter_4"}, "it was made with init_lora_weights pissa_niter_4, which changes the base"),
    ],
)  # fmt: skip
def test_faults_of_the_config(adapter: Path, change: dict[str, Any], fault: str) -> None:
    """Each is one sentence."""
    (adapter / "adapter_config.json").write_text(json.dumps(CONFIG | change))
    found = faults(adapter)
    assert [text for text in found if text.startswith(fault)], found


def test_a_base_that_changed_since(adapter: Path) -> None:
    """An adapter that finetune made says of which weights it is; of others, nobody knows."""
    note = adapter / "provenance.json"
    note.write_text(json.dumps({"base": {"digest": "0", "model": "./base"}}))
    assert faults(adapter) == []
    note.write_text(json.dumps({"base": {"digest": "1", "model": "./base"}}))
    [fault] = faults(adapter)
    assert fault.startswith(
        "it was trained on other weights of its base model, ./base, than ./base has now: train it again"
    )
    unread = {b"{": "cannot be read: ", b"\xff": "cannot be read: "}
    for content, said in {**unread, **dict.fromkeys([b"[]", b"{}", b'{"base": {}}'], "does not say")}.items():
        note.write_bytes(content)
        [fault] = faults(adapter)
        assert fault.startswith(f"{note} {said}")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_config_that_is_none(adapter: Path, content: bytes) -> None:
    """A file that holds something else is named."""
    (adapter / "adapter_config.json").write_bytes(content)
    [fault] = faults(adapter)
    assert fault.startswith(f"{adapter / 'adapter_config.json'} ")


@pytest.mark.parametrize(
    ("tensors", "fault"),
    [
        (
            shapes(layers=3),
            r"it was made for another base model: it has weights for layer 2, and \./base has 2 layers\.",
        ),
        (shapes(hidden=64), r"it was made for another base model: its layers are 64 wide, and those of \./base 32\."),
        (shapes(rank=4), r"its weights have the rank 4, and adapter_config\.json says 8\."),
        ({"model.norm.weight": [1, 32]}, r".*adapter_model\.safetensors holds no LoRA weights\."),
    ],
)
def test_weights_that_do_not_fit(adapter: Path, tensors: dict[str, list[int]], fault: str) -> None:
    """Their shapes are held against the config and the base model."""
    (adapter / "adapter_model.safetensors").write_bytes(safetensors(tensors))
    [found] = faults(adapter)
    assert re.fullmatch(fault, found), found


def test_what_is_not_known_is_no_fault(adapter: Path) -> None:
    """Without the base model's config, with one of another make, or with weights in another format, nothing is guessed."""
    (adapter / "adapter_model.safetensors").write_bytes(safetensors(shapes(hidden=64, module="o_proj")))
    assert faults(adapter) == []
    (adapter / "adapter_model.safetensors").write_bytes(safetensors(shapes(hidden=64)))
    for content in (b"{", b"{}", b"[]", b'{"hidden_size": "large"}'):
        (adapter.parent / "base" / "config.json").write_bytes(content)
        assert faults(adapter) == []
    (adapter.parent / "base" / "config.json").write_text(json.dumps({"text_config": BASE}))
    assert len(faults(adapter)) == 1
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert faults(adapter) == []
    (adapter / "adapter_model.bin").unlink()
    [fault] = faults(adapter)
    assert fault.endswith("has no weights: there is no adapter_model.safetensors in it.")


@pytest.mark.parametrize("length", [0, 7, 8, 20, 400, -1])
def test_weights_that_are_truncated(adapter: Path, length: int) -> None:
    """Wherever the file ends."""
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    assert faults(adapter) == [f"{path} is truncated or corrupt: copy it again."]


@pytest.mark.parametrize(
    "tensors",
    [
        {"layers.0.q_proj.lora_A.b": ["x", 8]}, {"layers.0.q_proj.lora_A.b": [None, None], "layers.1.q_proj.lora_A.b": [3, 4]},
        {"layers.0.q_proj.lora_A.b": [[1], 8]}, {"layers.0.q_proj.lora_A.b": [8, -1]}, {"layers.0.q_proj.lora_A.b": "88"},
    ],
)  # fmt: skip
def test_shapes_that_are_none(adapter: Path, tensors: dict[str, Any]) -> None:
    """They are numbers, or the file is damaged."""
    header = json.dumps({name: {"shape": shape, "data_offsets": [0, 0]} for name, shape in tensors.items()}).encode()
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert faults(adapter) == [f"{path} is truncated or corrupt: copy it again."]


def test_a_layer_of_very_many_digits(adapter: Path) -> None:
    """It is a name like another."""
    (adapter / "adapter_model.safetensors").write_bytes(safetensors({f"m.layers.{'9' * 5000}.lora_A.b": [8, 32]}))
    assert faults(adapter) == []


@pytest.mark.parametrize("name", ["adapter_config.json", "provenance.json"])
def test_what_is_no_file(adapter: Path, name: str) -> None:
    """A pipe is not waited for, and a device not read without an end."""
    for stage in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        (adapter / name).unlink(missing_ok=True)
        stage(adapter / name)
        [fault] = faults(adapter)
        assert fault == f"{adapter / name} cannot be read: It is no plain file."


def test_files_of_any_name_have_a_digest(adapter: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where that is not UTF-8; it is another one than without the file, and remembered."""
    monkeypatch.setattr(digests, "cache_folder", lambda: tmp_path / "cache")
    before = folder_digest(adapter)
    (adapter / os.fsdecode(b"\xff\xfe")).write_text("x")
    assert folder_digest(adapter) != before
    assert folder_digest(adapter) == folder_digest(adapter)


@pytest.mark.parametrize("header", [b"[]", b"{}x", b'{"a": 7}', b'{"a": {"shape": 7, "data_offsets": []}}', b"\xff"])
def test_weights_that_are_none(adapter: Path, header: bytes) -> None:
    """Whatever stands in the file."""
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert faults(adapter) == [f"{path} is truncated or corrupt: copy it again."]
    path.write_bytes(b"\xff" * 64)
    assert faults(adapter) == [f"{path} is truncated or corrupt: copy it again."]
