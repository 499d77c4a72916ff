"""The names that vLLM knows, read from its source."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchinfer.engines import vllm_source

LLM = "class LLM:\n    def __init__(self, model: str, *, seed: int = 0, **kwargs) -> None:\n        pass\n"
ARGUMENTS = (
    "from x import y\n\nclass EngineArgs:\n    model: str = y\n    max_model_len: int = 1\n\n    def f(self): pass\n"
)
METHODS = 'from typing import Literal\nQuantizationMethods = Literal["awq", "fp8"]\n'


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """What was read is not remembered from test to test."""
    functions = (
        vllm_source.engine_options, vllm_source.quantization_methods, vllm_source.too_deep,
        vllm_source.unsupported_by_xgrammar, vllm_source.statements,
    )  # fmt: skip
    for function in functions:
        function.cache_clear()
    yield
    for function in functions:
        function.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A vLLM of three files."""
    folder = tmp_path / "vllm"
    for name, text in (
        (vllm_source.LLM, LLM),
        (vllm_source.ENGINE_ARGUMENTS, ARGUMENTS),
        (vllm_source.QUANTIZATION, METHODS),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "__init__.py").write_text("raise RuntimeError('it was imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    return folder


def test_names_are_read_without_an_import(package: Path) -> None:
    """Those of the engine's arguments and of LLM itself."""
    assert vllm_source.engine_options() == frozenset({"model", "max_model_len", "seed"})
    assert vllm_source.quantization_methods() == frozenset({"awq", "fp8"})


@pytest.mark.parametrize("content", [None, "", "class (", "x = 1\n"])
def test_another_vllm_is_not_judged_by(package: Path, content: str | None) -> None:
    """Where its source is not as it was, nothing is known, and nothing refused."""
    for name in (vllm_source.LLM, vllm_source.QUANTIZATION):
        (package / name).unlink() if content is None else (package / name).write_text(content, encoding="utf-8")
    assert vllm_source.engine_options() is None
    assert vllm_source.quantization_methods() is None


def test_the_installed_one_is_understood() -> None:
    """The options that the docs and the engine itself name are among those of the vLLM that is installed."""
    known, methods = vllm_source.engine_options(), vllm_source.quantization_methods()
    if known is None or methods is None:
        pytest.skip("vLLM is not installed")
    assert {
        "model", "revision", "dtype", "quantization", "tensor_parallel_size", "runner", "disable_log_stats",
        "structured_outputs_config", "enable_lora", "max_loras", "max_lora_rank", "enforce_eager", "block_size",
        "kv_cache_memory_bytes", "max_num_seqs", "max_model_len", "gpu_memory_utilization",
    } <= known  # fmt: skip
    assert "self" not in known
    assert "max_modl_len" not in known
    assert {"awq", "gptq", "fp8"} <= methods


def test_checks_of_schemas_are_vllms_own(package: Path) -> None:
    """They are run without an import, with the functions and constants beside them; None where they are not as they were."""
    (package / vllm_source.SAMPLING).write_text(
        "import torch\nMAX_STRUCTURED_OUTPUT_JSON_NESTING = 2\n\n"
        "def _exceeds_json_nesting(spec: torch.T, limit: int) -> bool:\n    return limit < len(json_mod.dumps(spec))\n",
        encoding="utf-8",
    )
    check = vllm_source.too_deep()
    assert check is not None
    assert check({"a": 1})
    assert not check({})
    assert vllm_source.unsupported_by_xgrammar() is None
