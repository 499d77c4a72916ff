"""The values that vLLM's engine options take, read from its source."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchinfer.engines import vllm_options, vllm_source

ARGUMENTS = """
class EngineArgs:
    share: float = CacheConfig.share
    kind: Kind | str = CacheConfig.kind
    only: Kind = get_field(CacheConfig, "kind")
    most: int | None = None
    shouted: Kind = CacheConfig.shouted
    path: Path = CacheConfig.path
    own: Whatever = 1
"""
CACHE = """
Kind = Literal["auto", "fp8"]
class CacheConfig:
    share: float = Field(default=0.9, gt=0, le=1)
    kind: Kind = "auto"
    most: int = Field(default=LIMIT, ge=1)
    shouted: Kind = "auto"
    path: Path = None

    @field_validator("shouted", mode="before")
    def lower(cls, value): return value.lower()
"""
FILES = {
    vllm_source.ENGINE_ARGUMENTS: ARGUMENTS,
    vllm_options.CONFIG: "from vllm.config.cache import (CacheConfig, Kind)\n",
    "config/cache.py": CACHE,
    "__init__.py": "raise RuntimeError('it was imported')",
}


@pytest.fixture(autouse=True)
def _read_anew() -> Iterator[None]:
    """What was read is not remembered from test to test."""
    for function in (vllm_source.statements, vllm_options._values_of):
        function.cache_clear()
    yield
    for function in (vllm_source.statements, vllm_options._values_of):
        function.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A vLLM of four files."""
    for name, text in FILES.items():
        place = tmp_path / "vllm" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    return tmp_path / "vllm"


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("share", 0.5, None), ("share", 1, None), ("share", None, None),
        ("share", 1.5, "input should be less than or equal to 1 (it is 1.5)."),
        ("share", "much", "input should be a valid number, unable to parse string as a number (it is 'much')."),
        ("kind", "fp8", None), ("kind", "fp9", "input should be 'auto' or 'fp8' (it is 'fp9')."),
        ("only", "fp9", "input should be 'auto' or 'fp8' (it is 'fp9')."),
        ("most", None, None), ("most", 0, "input should be greater than or equal to 1 (it is 0)."),
        ("shouted", "FP8", None), ("path", 7, None), ("own", "x", None), ("unknown", "x", None),
    ],
)  # fmt: skip
def test_types_and_bounds_are_those_of_the_configuration(
    package: Path, name: str, value: Any, fault: str | None
) -> None:
    """By the field whose default an option has, or else its name; what is converted first, or no plain value, passes."""
    assert vllm_options.value_fault(name, value) == fault


@pytest.mark.parametrize("name", FILES)
def test_a_source_that_is_not_as_it_was_refuses_nothing(package: Path, name: str) -> None:
    """A file that is gone."""
    (package / name).unlink()
    assert vllm_options.value_fault("share", 1.5 if name != "__init__.py" else 0.5) is None


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("max_model_len", 512, "long"), ("max_model_len", -1, -2), ("gpu_memory_utilization", 0.9, 1.5),
        ("max_num_seqs", 128, 0), ("enforce_eager", True, "perhaps"), ("kv_cache_dtype", "auto", "fp99"),
        ("max_num_batched_tokens", 4096, 0), ("block_size", 32, -1), ("max_lora_rank", 8, 7), ("seed", 0, "x"),
        ("kv_cache_memory_bytes", 1 << 28, "much"),
    ],
)  # fmt: skip
def test_the_installed_one_is_read(name: str, good: object, bad: object) -> None:
    """Options of every day have types and bounds in the vLLM that is installed."""
    if vllm_source.engine_options() is None:
        pytest.skip("vLLM is not installed")
    assert vllm_options.value_fault(name, good) is None
    assert vllm_options.value_fault(name, bad) is not None
