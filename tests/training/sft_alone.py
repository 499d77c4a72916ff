"""The tests of test_sft.py, which runs them in a process of their own: others there load tokenizers without torch."""

from __future__ import annotations

import dataclasses
import os
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batchinfer.engines.environment import hide_vision_packages
from batchinfer.training import trainer
from batchinfer.training.records import Course, LearnedRow
from batchinfer.training.steps import steps_of
from tests.training import pupil

ROWS = [LearnedRow(tuple(range(300, 304 + number)), tuple(range(500, 501 + number % 3))) for number in range(5)]
STEPS = 3


class InProcess(trainer._Training):
    """A training in this process, without vLLM. stop_after: steps after which it is asked to end; 0 for never."""

    def __init__(self, course: Course, stop_after: int = 0) -> None:
        from peft import LoraConfig

        super().__init__(course, SimpleNamespace(send=self._heard), threading.Event())  # type: ignore[arg-type]
        self._stop_after = stop_after
        self._config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")

    def _heard(self, message: tuple[str, Any]) -> None:
        if message[0] == "step" and message[1].number == self._stop_after:
            self._asked.set()

    def learn(self) -> Sequence[float]:
        """The loss of each step so far."""
        self._load()
        self._checkpoint()
        try:
            self._train()
        except trainer._EndRequested:
            self._save()
        return self._losses


def course_of(folder: Path, model: Path, kind: str) -> Course:
    course = pupil.course(folder, "bundled")
    return dataclasses.replace(course, source=str(model), rank=4, epochs=1, batch=2, trainer=kind, learned=ROWS)


def weights(training: InProcess, folder: Path) -> dict[str, Any]:
    """Those that it writes, by their names."""
    from safetensors.torch import load_file

    training._write()
    found: dict[str, Any] = load_file(folder / "draft" / "adapter_model.safetensors")
    return found


@pytest.fixture
def model_folder() -> Path:
    """Of the bundled model."""
    return Path(os.environ["MODEL_FOLDER"])


SMALL = {
    "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}  # fmt: skip


def _made(folder: Path, tokenizer_folder: Path, kind: str) -> Path:
    """A tiny model by chance, with the bundled model's tokenizer."""
    hide_vision_packages()
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    torch.manual_seed(1)
    if kind == "mixture":
        config = MixtralConfig(**SMALL, vocab_size=len(tokenizer), num_hidden_layers=1, num_local_experts=4)
        MixtralForCausalLM(config).save_pretrained(folder)
    else:
        LlamaForCausalLM(LlamaConfig(**SMALL, vocab_size=len(tokenizer), num_hidden_layers=2)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def mixture(tmp_path: Path, model_folder: Path) -> Path:
    """A mixture of experts."""
    return _made(tmp_path / "mixture", model_folder, "mixture")


@pytest.fixture
def dense(tmp_path: Path, model_folder: Path) -> Path:
    """A model as most are. What holds for it holds for a large one, which takes a minute of two cores."""
    return _made(tmp_path / "dense", model_folder, "dense")


def test_a_mixture_of_experts_is_no_other_loss(tmp_path: Path, mixture: Path) -> None:
    """Such models have a loss of their own beside, which the plain loop leaves out, as who asks for the answers' does."""
    losses = [InProcess(course_of(tmp_path / kind, mixture, kind)).learn() for kind in ("plain", "trl")]
    assert len(losses[0]) == STEPS
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_trl_learns_what_the_plain_loop_learns(tmp_path: Path, dense: Path) -> None:
    """The same losses, step by step, and the same adapter, also where it was stopped after a step and went on."""
    plain = InProcess(course_of(tmp_path / "plain", dense, "plain"))
    expected = list(plain.learn())
    course = course_of(tmp_path / "trl", dense, "trl")
    stopped = list(InProcess(course, stop_after=1).learn())
    again = InProcess(course)
    losses = list(again.learn())
    assert (len(expected), len(stopped), losses[:1]) == (STEPS, 1, stopped)
    assert losses == pytest.approx(expected, abs=1e-3)
    found, wanted = weights(again, tmp_path / "trl"), weights(plain, tmp_path / "plain")
    assert found.keys() == wanted.keys()
    apart, far = (
        sum(float((found[name] - other).abs().sum()) for name, other in of.items() if "lora_B" in name)
        for of in (wanted, {name: 0 * weight for name, weight in wanted.items()})
    )
    assert far > 0
    assert apart < far / 100  # of what they moved from zero
    assert sorted(path.name for path in course.draft.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    _check_labels(again)


def _check_labels(training: InProcess) -> None:
    """The loss is on the answers' tokens alone: those that the plain loop takes."""
    from batchinfer.training.sft import trainer_of

    course = training._course
    batches = list(steps_of(course.learned, course.batch, 1, course.seed))
    with warnings.catch_warnings(action="ignore"):
        made = trainer_of(course, training._model, training._optimizer, batches, lambda: None, lambda _: None)
    for batch, tensors in zip(batches, made.get_train_dataloader(), strict=True):
        goals = training._of_answers([(row.prompt, row.answer) for row in batch]).goals
        for row, labels, goal in zip(batch, tensors["labels"].tolist(), goals.tolist(), strict=True):
            kept = [label for label in labels if label != -100]
            assert kept == [each for each in goal if each >= 0] == list(row.answer)
            assert labels[: len(row.prompt)] == [-100] * len(row.prompt)
