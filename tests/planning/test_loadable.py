"""What is looked at to know whether an engine would load a job's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchinfer.engines import vllm_source
from batchinfer.planning.loadable import check_models
from batchinfer.planning.prepare import Options, prepare
from tests.tiny import make_job, numbered


@pytest.mark.parametrize(
    ("model", "read"), [({}, False), ({"options": {"seed": 3}}, True), ({"quantization": "awq"}, True)]
)
def test_the_source_of_vllm_is_read_for_what_the_job_sets(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, model: dict[str, Any], read: bool
) -> None:
    """It is long: a job that sets none of vLLM's options is checked without it."""
    asked = list[str]()
    monkeypatch.setattr(vllm_source, "engine_options", lambda: asked.append("options"))
    monkeypatch.setattr(vllm_source, "quantization_methods", lambda: asked.append("methods"))
    job, data = make_job(tmp_path / "shop", numbered(1), tiny, model={"id": str(tiny), **model})
    with prepare(job, data, Options()) as prepared:
        check_models(prepared, lambda _: None)
    assert bool(asked) == read
