"""What prefix caching shares, as estimates and engines take it."""

from __future__ import annotations

from typing import Any

import pytest

from batchinfer.engines.devices import Placement
from batchinfer.engines.protocol import EngineConfig
from batchinfer.engines.vllm import VllmDriver, block_size


@pytest.mark.parametrize(
    ("options", "on_cpu", "size"),
    [({}, False, 16), ({}, True, 32), ({"block_size": 64}, True, 64), ({"block_size": 8}, False, 8)],
)
def test_the_block_size_is_the_devices_or_the_jobs(options: dict[str, Any], on_cpu: bool, size: int) -> None:
    """An estimate counts in the blocks of the device, or in those of the job's options."""
    assert block_size(options, on_cpu=on_cpu) == size


@pytest.mark.parametrize("options", [{}, {"block_size": 64}])
def test_the_engine_on_cpu_takes_the_same(options: dict[str, Any]) -> None:
    """VLLM on CPU is given the size that estimates count in."""
    driver = VllmDriver.__new__(VllmDriver)  # made, not loaded
    driver._on_cpu = Placement(cores=(0,)).is_cpu
    assert driver._arguments(EngineConfig("m", options=options))["block_size"] == block_size(options, on_cpu=True)
