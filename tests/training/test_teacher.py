"""The process that trains, as the command sees it: watched, stopped in order, and never left behind."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from batchinfer.cli.finetune import step_line
from batchinfer.errors import BatchinferError, Interrupted, ModelError, Stopped
from batchinfer.pipeline.stop import stopping
from batchinfer.training.records import Scored, Step, Trained
from batchinfer.training.teacher import teach
from tests.tiny import press
from tests.training import pupil


@dataclass
class Watching:
    """A `TrainingConsole` that remembers. at_step: what to do once the first step is done."""

    at_step: Callable[[], None] = lambda: None
    said: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    scores: list[Scored] = field(default_factory=list)

    def info(self, text: str) -> None:
        self.said.append(text)

    def step(self, step: Step) -> None:
        self.steps.append(step)
        if len(self.steps) == 1:
            self.at_step()

    def scored(self, scored: Scored) -> None:
        self.scores.append(scored)


def train(folder: Path, label: str, console: Watching) -> Trained:
    course = pupil.course(folder, label)
    with stopping(None, console.info) as stop:
        return teach(course, folder / "finetune.log", console, stop, pupil.__name__)


def test_it_shows_how_it_goes(tmp_path: Path) -> None:
    """Notes and steps come through; a line tells the loss and the time that is left."""
    console = Watching()
    assert train(tmp_path, "learns", console) == pupil.learned()
    assert console.said == ["Scoring ..."]
    assert console.scores == [Scored(2, 2)]
    assert [step_line(step) for step in console.steps] == [
        "step 1 of 2, loss 2.000, about 1 s to go", "step 2 of 2, loss 1.000",
    ]  # fmt: skip


def test_what_was_done_by_then_is_kept_too(tmp_path: Path) -> None:
    """A training that ends while it is asked to stop is not gone on with: what follows would take minutes."""
    with pytest.raises(Interrupted):
        train(tmp_path, "learns", Watching(press(signal.SIGINT)))


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [(signal.SIGINT, Interrupted, 130), (signal.SIGTERM, Stopped, 4)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_signal_keeps_a_checkpoint(tmp_path: Path, number: signal.Signals, kind: type[Stopped], code: int) -> None:
    """The process is asked to end, saves where it was, and the command ends so that it can go on from there."""
    with pytest.raises(kind, match="Run the same command again to go on from here") as caught:
        train(tmp_path, "stops", Watching(press(number)))
    assert caught.value.exit_code == code
    assert (tmp_path / "finetune.pt").exists()


@pytest.mark.parametrize(
    ("label", "kind", "said"),
    [
        ("fails", ModelError, r"no number any more\. What was printed meanwhile is in .*finetune\.log"),
        ("dies", Stopped, r"died \(exit code 3\)\. What it printed is in .*finetune\.log\. Run the command again\."),
        (
            "is killed",
            Stopped,
            r"exit code -9\)\. It may have had too little memory: .* to go on from the last checkpoint",
        ),
    ],
)
def test_one_that_ends_badly(tmp_path: Path, label: str, kind: type[BatchinferError], said: str) -> None:
    """A sentence says what happened, and where more is to be read."""
    with pytest.raises(kind, match=said):
        train(tmp_path, label, Watching())
    if label == "dies":
        assert (tmp_path / "finetune.log").read_text(encoding="utf-8") == "as loud as it could\n"
