"""The engine `openai` against vLLM's own server, a process of its own with the bundled model: the same as an engine here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from batchinfer.core.records import Generation
from benchmarks.engines import WINDOW, Case, Results, make_cases, others, server_engine, vllm_server
from tests.conftest import EngineSlot

pytestmark = pytest.mark.slow

EQUAL = 0.97
ROWS = 100


@pytest.mark.closes_engine
def test_a_server_says_what_an_engine_here_says(
    engine_slot: EngineSlot, model_folder: Path, adapter: Path, tmp_path: Path
) -> None:
    """The same keys, the same failures, and at temperature 0 nearly always the same texts and scores; so with an adapter."""
    cases = {None: make_cases(model_folder, ROWS), adapter: make_cases(model_folder, ROWS // 4)}
    here = engine_slot.get(adapter=str(adapter))
    said = {each: {kind: case.ask(here, each) for kind, case in kinds.items()} for each, kinds in cases.items()}
    assert others(said[adapter]["text"], cases[adapter]["text"].ask(here))  # it does change something
    engine_slot.close()
    with vllm_server(model_folder, tmp_path / "server.log", adapter) as server:
        for each, kinds in cases.items():
            with server_engine(server.url, tmp_path / f"asked-{each is None}", model_folder, each) as asked:
                assert asked.wait_ready().max_model_len == WINDOW
                there = {kind: case.ask(asked, each) for kind, case in kinds.items()}
            _check_alike(kinds, said[each], there)


def _check_alike(cases: Mapping[str, Case], here: Mapping[str, Results], there: Mapping[str, Results]) -> None:
    for kind, case in cases.items():
        apart = others(here[kind], there[kind])
        assert len(apart) <= (1 - EQUAL) * len(case.prompts), [(here[kind][key], there[kind][key]) for key in apart]
    cached = [each.cached_tokens for each in there["choices"].values() if isinstance(each, Generation)]
    assert sum(cached) > 0
