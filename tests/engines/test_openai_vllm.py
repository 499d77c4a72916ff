"""The engine `openai` against vLLM's own server, a process of its own with the bundled model: the same as an engine here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from batchinfer.core.records import Generation
from batchinfer.engines.pool import EnginePool
from benchmarks.engines import WINDOW, Case, Results, make_cases, others, server_engine, vllm_server
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
    _check_server(model_folder, None, cases, here, tmp_path)


@pytest.mark.closes_engine
def test_a_server_says_the_same_with_an_adapter(
    engine_slot: EngineSlot, model_folder: Path, adapter: Path, tmp_path: Path
) -> None:
    """It is found by its folder among what the server lists, and what it changes is what it changes here."""
    cases = make_cases(model_folder, ROWS // 4)
    engine = engine_slot.get(adapter=str(adapter))
    here = {kind: case.ask(engine, adapter) for kind, case in cases.items()}
    assert others(here["text"], cases["text"].ask(engine))
    engine_slot.close()
    _check_server(model_folder, adapter, cases, here, tmp_path)


def _check_server(
    model: Path, adapter: Path | None, cases: Mapping[str, Case], here: Mapping[str, Results], folder: Path
) -> None:
    """Asks vLLM's server what an engine here was asked."""
    with (
        vllm_server(model, folder / "server.log", adapter) as server,
        server_engine(server.url, folder / "asked", model, adapter) as asked,
    ):
        assert asked.wait_ready().max_model_len == WINDOW
        there = {kind: case.ask(asked, adapter) for kind, case in cases.items()}
    _check_alike(cases, here, there)


def _check_alike(cases: Mapping[str, Case], here: Mapping[str, Results], there: Mapping[str, Results]) -> None:
    for kind, case in cases.items():
        apart = others(here[kind], there[kind])
        assert len(apart) <= (1 - EQUAL) * len(case.prompts), [(here[kind][key], there[kind][key]) for key in apart]
    cached = [each.cached_tokens for each in there["choices"].values() if isinstance(each, Generation)]
    assert sum(cached) > 0
