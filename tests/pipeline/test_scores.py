"""Scores of choices, against the model's own logits: the same weights, loaded by transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.job import reader
from batchinfer.pipeline.run import run
from batchinfer.planning import question
from batchinfer.planning.prepare import Options
from tests.conftest import MODEL, WINDOW, EngineSlot, Workshop
from tests.tiny import RecordingConsole

SENTIMENT = Path(__file__).parents[2] / "jobs" / "sentiment"
ROWS = 24
TOLERANCE = 1e-3  # of a probability; float32 on both sides, since bfloat16 rounds a logit of 16 to eighths

REFERENCE = """
import json, sys
from batchinfer.engines.environment import hide_vision_packages
hide_vision_packages()
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
rows, tokens = json.load(sys.stdin)
answers = []
with torch.no_grad():
    for ids in rows:
        logits = model(torch.tensor([ids])).logits[0, -1].double()
        answers.append(torch.softmax(logits, -1)[tokens].tolist())
print(json.dumps(answers))
"""


def reference(model: Path, prompts: list[list[int]], tokens: tuple[int, ...]) -> list[list[float]]:
    """Probability of each token as the next one, by transformers in float32."""
    done = subprocess.run(
        [sys.executable, "-c", REFERENCE, str(model)],
        input=json.dumps([prompts, list(tokens)]),
        capture_output=True,
        text=True,
        check=True,
    )
    answers: list[list[float]] = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.mark.slow
def test_scores_are_the_models_own_probabilities(
    workshop: Workshop, engine_slot: EngineSlot, console: RecordingConsole, model_folder: Path
) -> None:
    """In float32, mass and renormalised scores equal the softmax of transformers' logits at the first answer token."""
    table = pq.read_table(SENTIMENT / "queries.parquet").slice(0, ROWS).rename_columns({"sentence": "text"})
    spec = reader.load(str(SENTIMENT), {}).spec
    job, data = workshop.job(
        table,
        prompt={"system": spec.prompt and spec.prompt.system, "template": "{{ text }}"},
        model={"id": MODEL, "dtype": "float32", "options": {"max_model_len": WINDOW}},
        output={"type": "choice", "choices": ["Positive", "Negative"]},
    )
    run(job, data, Options(), console, engine_slot.get(dtype="float32"))
    served = _served(data.versions / "000001" / "predictions.parquet")

    asked = question.make(job, data)
    tokenizer = Tokenizer(str(model_folder), None, {})
    texts = table["text"].to_pylist()
    ids = tokenizer.encode([tokenizer.text(asked.template.messages({"text": text})) for text in texts], chat=True)
    truth = reference(model_folder, ids, asked.task(tokenizer).score_tokens or ())

    for text, (positive, negative) in zip(texts, truth, strict=True):
        row = served[text]
        scores = json.loads(row["scores"])
        assert row["mass"] == pytest.approx(positive + negative, abs=TOLERANCE)
        assert scores["Positive"] == pytest.approx(positive / (positive + negative), abs=TOLERANCE)
        assert scores["Positive"] + scores["Negative"] == pytest.approx(1)
        assert row["score"] == scores[row["prediction"]] == max(scores.values())


@pytest.mark.slow
def test_completion_scores_the_label_after_a_space(model_folder: Path) -> None:
    """In a completion the scored token is the one that follows the prompt when the label is written after a space."""
    tokenizer = Tokenizer(str(model_folder), None, {})
    labels = ["drupe", "pome", "berry", "nut"]
    tokens = tokenizer.choice_tokens(labels, chat=False)
    [prompt] = tokenizer.encode(["peach: drupe\napple:"], chat=False)
    for label, token in zip(labels, tokens, strict=True):
        [whole] = tokenizer.encode([f"peach: drupe\napple: {label}"], chat=False)
        assert whole[: len(prompt) + 1] == [*prompt, token]


def _served(path: Path) -> dict[str, dict[str, Any]]:
    return {row["text"]: row for row in pq.read_table(path).to_pylist()}
