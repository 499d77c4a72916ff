"""Training processes that train nothing, in place of the real one: `python -m tests.training.pupil FD` does what the label says."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from batchinfer.engines.devices import Placement
from batchinfer.training.records import Course, HeldRow, LearnedRow, RowScore, Scored, Step, Trained

LEARNED = [LearnedRow((1, 2, 3), (4,)), LearnedRow((1, 2), (5,))]
HELD = [HeldRow((1, 2, 3), ((4,), (5,)), (1, 1), 0), HeldRow((1, 2), ((4,), (5,)), (1, 1), 1)]


def course(folder: Path, label: str) -> Course:
    """A course whose files lie in a folder."""
    draft = folder / "draft"
    draft.mkdir(parents=True)
    return Course(
        "a model", None, label, Placement(cores=(0,)), "digest", 8, 16, 5e-4, 1, 8, 0, "plain", LEARNED, HELD, [], draft,
        folder / "finetune.pt",
    )  # fmt: skip


def learned(held: int = len(HELD)) -> Trained:
    """What such a training comes to: right after it, and by chance before."""
    before = [RowScore((-0.7, -0.7), greedy=False)] * held
    after = [RowScore((-0.1, -2.4) if number % 2 == 0 else (-2.4, -0.1), greedy=True) for number in range(held)]
    return Trained((2.0, 1.0), 3.5, tuple(before), tuple(after), {"peft": "1"})


def write_adapter(folder: Path) -> None:
    """The files of an adapter, as far as anybody looks."""
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "adapter_model.safetensors").chmod(0o600)  # as safetensors does


def main(pipe: Connection) -> None:
    given: Course = pipe.recv()
    pipe.send(("note", "Scoring ..."))
    pipe.send(("scored", Scored(2, 2)))
    if given.label == "fails":
        pipe.send(("failed", "The loss of step 1 is no number any more."))
        time.sleep(60)
    if given.label == "dies":
        os.write(1, b"as loud as it could\n")
        os._exit(3)
    if given.label == "is killed":
        given.checkpoint.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    for number in range(1, 3):
        pipe.send(("step", Step(number, 2, 3.0 - number, float(number))))
        if given.label == "stops":
            pipe.recv()
            given.checkpoint.touch()
            pipe.send(("stopped", None))
            time.sleep(60)
    pipe.send(("done", learned()))
    time.sleep(60)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
