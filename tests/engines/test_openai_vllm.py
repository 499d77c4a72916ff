"""The engine `openai` against vLLM's own server, a process of its own with the bundled model: the same as an engine here."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchinfer.core.records import Generation
from batchinfer.engines.pool import EnginePool
from benchmarks.engines import WINDOW, make_cases, others, server_engine, vllm_server
from tests.conftest import EngineSlot

pytestmark = pytest.mark.slow

EQUAL = 0.97
ROWS = 100


@pytest.mark.closes_engine
def test_a_server_says_what_an_engine_here_says(
    engine: EnginePool, engine_slot: EngineSlot, model_folder: Path, tmp_path: Path
) -> None:
    """The same keys, the same failures, and at temperature 0 nearly always the same texts and scores."""
    cases = make_cases(model_folder, ROWS)
    here = {kind: case.ask(engine) for kind, case in cases.items()}
    engine_slot.close()
    with (
        vllm_server(model_folder, tmp_path / "server.log") as server,
        server_engine(server.url, tmp_path / "asked", model_folder) as asked,
    ):
        assert asked.wait_ready().max_model_len == WINDOW
        there = {kind: case.ask(asked) for kind, case in cases.items()}
    for kind, case in cases.items():
        apart = others(here[kind], there[kind])
        assert len(apart) <= (1 - EQUAL) * len(case.prompts), [(here[kind][key], there[kind][key]) for key in apart]
    cached = [each.cached_tokens for each in there["choices"].values() if isinstance(each, Generation)]
    assert sum(cached) > 0
