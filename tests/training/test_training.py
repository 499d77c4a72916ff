"""A real training: peft on the bundled model, stopped and gone on with, served by vLLM, and merged."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batchinfer.core.home import JobData
from batchinfer.errors import Interrupted, ModelError
from batchinfer.job.reader import Job
from batchinfer.pipeline.stop import stopping
from batchinfer.planning.prepare import Options
from batchinfer.training.finetune import FinetuneReport, finetune
from batchinfer.training.merge import merge_adapter
from batchinfer.training.parity import BOUND
from tests.conftest import MODEL, WINDOW, EngineSlot, Workshop
from tests.tiny import ROOT, press
from tests.training.test_teacher import Watching

pytestmark = pytest.mark.slow

SENTIMENT = ROOT / "jobs" / "sentiment"
LEARNED, HELD, STEPS = 20, 10, 3


def job_of(workshop: Workshop, **settings: object) -> tuple[Job, JobData]:
    """A job with labels to learn in three steps, and golden rows."""
    labels, golden = (pq.read_table(SENTIMENT / f"{name}.parquet") for name in ("labels", "golden"))
    parts = {"labels": labels.slice(0, LEARNED), "golden": golden.slice(0, HELD)}
    texts = [text for part in parts.values() for text in part["sentence"].to_pylist()]
    job, data = workshop.job(
        {"text": texts}, output={"type": "choice", "choices": ["Positive", "Negative"]},
        prompt={"system": "Positive or Negative?", "template": "{{ text }}"}, eval={"golden": {"path": "golden.parquet"}},
        finetune={"labels": {"path": "labels.parquet"}, "epochs": 1, "batch": LEARNED // STEPS + 1, **settings},
    )  # fmt: skip
    for name, part in parts.items():
        pq.write_table(
            part.select(["sentence", "answer"]).rename_columns(["text", "answer"]), job.folder / f"{name}.parquet"
        )
    return job, data


def train(workshop: Workshop, console: Watching, slot: EngineSlot | None = None, **settings: object) -> FinetuneReport:
    job, data = job_of(workshop, **settings)
    with stopping(None, console.info) as stop:
        engine = None if slot is None else slot.get(adapter="any", dtype="float32")
        return finetune(job, data, Options(), console, stop, engine)


def test_an_adapter_is_trained_served_and_merged(workshop: Workshop, engine_slot: EngineSlot) -> None:
    """Stopped in its midst it goes on with the next step; vLLM gives the trained scores; merged weights have it in them."""
    stopped, console = Watching(press(signal.SIGINT)), Watching()
    with pytest.raises(Interrupted):
        train(workshop, stopped)
    report = train(workshop, console, engine_slot)
    assert f"Going on after step {len(stopped.steps)}." in console.said
    assert [step.number for step in [*stopped.steps, *console.steps]] == [1, 2, 3]
    assert (report.rows, report.steps, report.before.rows, report.held_from) == (LEARNED, STEPS, HELD, "golden rows")
    assert report.parity.rows == LEARNED + HELD
    assert 0 < report.parity.largest <= BOUND
    assert report.after.loss != report.before.loss
    job, _ = job_of(workshop)
    folder = job.folder / report.adapter
    note = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert note["base"]["model"] == MODEL
    assert {"torch", "transformers", "peft"} <= note["libraries"].keys()
    assert [scored.done for scored in stopped.scores][-1] == HELD
    _check_merged(workshop, folder)


def _check_merged(workshop: Workshop, adapter: Path) -> None:
    """A layer of the merged model is that of the base and the product of the adapter's matrices, but for rounding."""
    from safetensors.torch import load_file

    model = {"id": MODEL, "adapter": f"adapters/{adapter.name}", "options": {"max_model_len": WINDOW}}
    job, data = workshop.job({"text": ["a"]}, model=model)
    folder = job.folder / merge_adapter(job, data, print).merged
    note = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert (note["base"]["model"], note["adapter"]["digest"][:16]) == (MODEL, adapter.name)
    assert len(note["tokenizer"]) == 64
    merged = load_file(folder / "model.safetensors")
    base = load_file(next(workshop.models.glob("*/model.safetensors")))
    parts, layer = load_file(adapter / "adapter_model.safetensors"), "model.layers.7.mlp.up_proj"
    product = 2 * parts[f"base_model.model.{layer}.lora_B.weight"] @ parts[f"base_model.model.{layer}.lora_A.weight"]
    wanted, found = base[f"{layer}.weight"].float() + product, merged[f"{layer}.weight"]
    assert found.dtype == base[f"{layer}.weight"].dtype
    assert float((found.float() - wanted).abs().max()) < 0.01
    assert float(product.abs().max()) > 0


def test_what_vllm_would_not_load_is_not_trained(workshop: Workshop) -> None:
    """VLLM itself says why, before the model is loaded."""
    console = Watching()
    with pytest.raises(
        ModelError, match=r"vLLM would not load such an adapter.* LoRA rank 1024 is greater than max_lora_rank 512"
    ):
        train(workshop, console, rank=1024)
    assert not console.steps
