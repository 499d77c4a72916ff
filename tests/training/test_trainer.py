"""The training process by itself, with a model that is stood in for: what it says when it is stopped, and when it fails."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batchinfer.engines import environment
from batchinfer.engines.devices import Placement
from batchinfer.errors import MissingExtra, ModelError
from batchinfer.training import trainer
from batchinfer.training.records import HeldRow, Scored
from tests.training import pupil

TOO_MUCH = "The training ran out of memory: set finetune.batch lower"


class Said:
    """What the model gives: the same for all answers."""

    def logprob(self, row: int, answer: tuple[int, ...]) -> float:
        return -0.5

    def is_greedy(self, row: int, answer: tuple[int, ...]) -> bool:
        return True


class Pretended(trainer._Training):
    """A training without a model. stop_at: after which scoring it is asked to end, from 1. known: the last step of a checkpoint."""

    def __init__(self, folder: Path, stop_at: int = 0, known: int = 0) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.saved: list[tuple[int, int]] = []
        self._known, self._stop_at, self._scorings, self._model = known, stop_at, 0, SimpleNamespace(eval=lambda: None)
        super().__init__(pupil.course(folder, "a model"), SimpleNamespace(send=self._keep), threading.Event())  # type: ignore[arg-type]
        self._losses = [1.0] * known

    def _keep(self, message: tuple[str, Any]) -> None:
        self.sent.append(message)

    def _ask_vllm(self) -> None:
        """Nobody is asked."""

    def _load(self) -> None:
        """Nothing is loaded."""

    def _checkpoint(self) -> int:
        return self._known

    def _of_answers(self, rows: Sequence[Any]) -> Any:
        self._scorings += 1
        if self._scorings == self._stop_at:
            self._asked.set()
        return Said()

    def _train(self) -> None:
        self._heed()
        self._losses = [1.0, 0.5]

    def _save(self) -> None:
        self.saved.append((len(self._before), len(self._losses)))

    def _write(self) -> None:
        """Nothing is written."""


@pytest.fixture(autouse=True)
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds to import."""
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(inference_mode=contextlib.nullcontext))


def kinds(training: Pretended) -> list[str]:
    return [kind for kind, _ in training.sent]


def test_scoring_is_shown(tmp_path: Path) -> None:
    """Before and after the training, some rows at a time."""
    training = Pretended(tmp_path)
    training.run()
    assert kinds(training) == ["note", "scored", "note", "scored", "done"]
    assert training.sent[1] == ("scored", Scored(2, 2))
    learned = training.sent[-1][1]
    assert (len(learned.before), len(learned.after), learned.losses) == (2, 2, (1.0, 0.5))


def test_it_stops_while_it_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of held-out rows take minutes: what was done by then is kept, and the next process scores them again."""
    monkeypatch.setattr(trainer, "SCORED", 1)
    for stop_at, saved in ((1, [(0, 0)]), (3, [(2, 2), (2, 2)])):
        training = Pretended(tmp_path / str(stop_at), stop_at)
        training.run()
        assert (kinds(training)[-1], training.saved, training._scorings) == ("stopped", saved, stop_at)
    again = Pretended(tmp_path / "again")
    again.run()
    assert len(again._before) == 2


def test_a_checkpoint_from_before_the_first_step_says_nothing(tmp_path: Path) -> None:
    """Only steps that were taken are gone on after."""
    assert not any("Going on" in str(said) for _, said in run_of(tmp_path / "new", 0))
    assert ("note", "Going on after step 7.") in run_of(tmp_path / "old", 7)


def run_of(folder: Path, known: int) -> list[tuple[str, Any]]:
    training = Pretended(folder, known=known)
    training.run()
    return training.sent


def failing(exc: Exception) -> Any:
    def run(_: object) -> None:
        raise exc

    return run


def test_settings_of_other_programs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 bits, or ranks of a cluster, that somebody exported for another training."""
    exported = {
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "ACCELERATE_USE_FSDP": "true",
        "WORLD_SIZE": "8",
        "PATH": "/bin",
    }
    monkeypatch.setattr("os.environ", exported)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(environment, "prepare_cpu", lambda _: None)
    trainer.prepare_process(Placement(cores=(0,)))
    assert not exported.keys() & {"ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_FSDP", "WORLD_SIZE"}
    assert exported["PATH"] == "/bin"


def test_a_trl_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is scored: an older one lacks what is needed."""
    monkeypatch.setitem(sys.modules, "batchinfer.training.sft", None)
    with pytest.raises(MissingExtra, match=r"pip install '.*trl"):
        trainer._need_sft()


@pytest.mark.parametrize(
    ("exc", "said"),
    [
        (ModelError("The model cannot be loaded."), "The model cannot be loaded."),
        (
            ValueError("Target modules {'a'} not found.\nPlease check"),
            "The training failed: ValueError: Target modules {'a'} not found.",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), TOO_MUCH),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), TOO_MUCH),
        (MemoryError(), TOO_MUCH),
        (KeyError(), "The training failed: KeyError."),
    ],
    ids=["ours", "peft", "GPU memory", "memory", "Python's memory", "without a word"],
)
def test_whatever_fails_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], exc: Exception, said: str
) -> None:
    """A library's error is no crash: it says what to do, or what it was; the log has all of it."""
    monkeypatch.setattr(trainer, "prepare_process", lambda *_: None)
    monkeypatch.setattr(trainer, "_receive", lambda *_: None)
    monkeypatch.setattr(trainer._Training, "run", failing(exc))
    ours, theirs = multiprocessing.Pipe()
    ours.send(pupil.course(tmp_path, "a model"))
    trainer.main(theirs)
    kind, sentence = ours.recv()
    assert (kind, sentence.startswith(said)) == ("failed", True)
    assert (type(exc).__name__ in capsys.readouterr().err) == (not isinstance(exc, ModelError))


def test_held_rows_are_those_of_the_course(tmp_path: Path) -> None:
    """Candidates that differ in their last token alone are scored in one pass."""
    rows = [HeldRow((1,), ((4,), (5,)), (1, 1), 0), HeldRow((1,), ((4, 5), (4, 6), (7, 8)), (2, 2, 2), 2)]
    training = Pretended(tmp_path)
    scores = training._scores(rows)
    assert [score.logprobs for score in scores] == [(-0.5, -0.5), (-0.5, -0.5, -0.5)]
    assert training.sent == [("scored", Scored(3, 3))]
