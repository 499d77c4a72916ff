"""An engine that follows a script. It exists only to stage faults, and is never used where a real engine can be.

It speaks the protocol of `engines.child.Driver`; a pool takes it as driver="tests.scripted:ScriptedDriver". The
script comes through EngineConfig.options and says which token ids, anywhere in a prompt, bring which fault. What a
script does not cover is a ModelError, which ends the test: nothing is made up.
"""

from __future__ import annotations

import math
import os
import signal
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchinfer.core.records import Failure, Generation, Prompt
from batchinfer.engines.devices import Placement
from batchinfer.engines.protocol import EngineConfig, EngineInfo, Task
from batchinfer.errors import ModelError

DRIVER = "tests.scripted:ScriptedDriver"
FOREVER = 3600.0
HALF_A_MESSAGE = struct.pack("!i", 1000) + bytes(500)  # as `Connection` writes one


@dataclass(frozen=True, slots=True)
class Script:
    """What the engine does.

    answer: "echo" gives the prompt's last message back; a mapping gives a text for the first token id that it knows.
    scores: the probability of each choice, in the task's order.
    die_on, hang_on, freeze_on, refuse, cut_off: token ids. once: a folder; each death, hang and freeze is then staged only once.
    slow: seconds of a step. per_step: prompts finished in one. in_flight, max_len, version: what EngineInfo says.
    loads: what each load of the pool's only process does: "fine", "die", "hang", or a ModelError's sentence.
    diary: file that gets a line for each load, prompt taken and prompt answered. prints: said on stdout and stderr.
    helper: whether to start a process below this one, as vLLM does.
    """

    answer: Any = None
    scores: Sequence[float] | None = None
    die_on: Sequence[int] = ()
    hang_on: Sequence[int] = ()
    freeze_on: Sequence[int] = ()
    refuse: Sequence[int] = ()
    cut_off: Sequence[int] = ()
    once: str | None = None
    slow: float = 0.0
    per_step: int = 1
    in_flight: int = 8
    max_len: int = 1000
    version: str = ""
    loads: Sequence[str] | None = None
    diary: str | None = None
    prints: str | None = None
    helper: bool = False


class ScriptedDriver:
    """An engine without a model. A prompt that its script does not cover is a ModelError."""

    def __init__(self, config: EngineConfig, placement: Placement) -> None:
        try:
            self._script = Script(**config.options)
        except TypeError as exc:
            raise ModelError(f"The script is invalid: {exc}") from exc
        self._waiting: deque[Prompt] = deque()
        self._task: Task | None = None
        self._load()
        seen = " ".join(os.environ.get(f"CUDA_{name}", "-") for name in ("VISIBLE_DEVICES", "DEVICE_ORDER"))
        where = placement.description if placement.is_cpu else f"the GPUs {seen}"
        self.info = EngineInfo(
            self._script.max_len, self._script.in_flight, f"a script on {where}", self._script.version
        )

    def _load(self) -> None:
        self._note("load")
        if self._script.prints:
            for stream in (sys.stdout, sys.stderr):
                stream.write(self._script.prints)
                stream.flush()
        if self._script.helper:
            self._note("helper", str(subprocess.Popen(["sleep", str(FOREVER)]).pid))
        if self._script.loads is None:
            return
        number = len([entry for entry in read_diary(self._script.diary or "") if entry[0] == "load"])
        if number > len(self._script.loads):
            raise ModelError(f"The script has no load number {number}.")
        what = self._script.loads[number - 1]
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "hang":
            time.sleep(FOREVER)
        if what != "fine":
            raise ModelError(what)

    def begin(self, task: Task) -> None:
        """Takes note of the task. Raises ModelError for one that no script covers."""
        if task.constraint is not None or task.adapter is not None:
            raise ModelError("The script covers neither constraints nor adapters.")
        self._task = task

    def add(self, prompt: Prompt) -> Failure | None:
        """Takes one prompt, or refuses it."""
        self._note("take", prompt.prompt_key.hex())
        if self._meets(prompt, self._script.refuse):
            return Failure(prompt.prompt_key, "engine", "refused", "The script refuses this prompt.")
        self._waiting.append(prompt)
        return None

    def busy(self) -> bool:
        """Whether prompts wait for their answer."""
        return bool(self._waiting)

    def step(self) -> list[Generation | Failure]:
        """Answers the next prompts, or dies or hangs over them."""
        time.sleep(self._script.slow)
        prompts = [self._waiting.popleft() for _ in range(min(self._script.per_step, len(self._waiting)))]
        for prompt in prompts:
            if self._meets(prompt, self._script.die_on) and self._first_time(prompt):
                os.kill(os.getpid(), signal.SIGKILL)
            if self._meets(prompt, self._script.hang_on) and self._first_time(prompt):
                time.sleep(FOREVER)
            if self._meets(prompt, self._script.freeze_on) and self._first_time(prompt):
                freeze()
        results: list[Generation | Failure] = [self._answer(prompt) for prompt in prompts]
        for prompt in prompts:
            self._note("answer", prompt.prompt_key.hex())
        return results

    def _answer(self, prompt: Prompt) -> Generation:
        if self._task is None:
            raise ModelError("A prompt came before the task.")
        logprobs = None
        text = ""
        scored = prompt.continuations if self._task.score_continuations else self._task.score_tokens
        if scored is not None:
            if self._script.scores is None or len(self._script.scores) != len(scored):
                raise ModelError(f"The script has no scores for {len(scored)} choices.")
            logprobs = tuple(math.log(score) for score in self._script.scores)
        else:
            text = self._text(prompt)
        return Generation(
            prompt_key=prompt.prompt_key,
            text=text,
            finish_reason="length" if self._meets(prompt, self._script.cut_off) else "stop",
            prompt_tokens=len(prompt.token_ids),
            cached_tokens=0,
            output_tokens=1,
            logprobs=logprobs,
        )

    def _text(self, prompt: Prompt) -> str:
        if self._script.answer == "echo":
            return prompt.messages[-1][1]
        known = {int(token): text for token, text in (self._script.answer or {}).items()}
        for token in prompt.token_ids:
            if token in known:
                return str(known[token])
        raise ModelError(f"The script has no answer for {prompt.messages[-1][1]!r}.")

    def _meets(self, prompt: Prompt, tokens: Sequence[int]) -> bool:
        return not set(tokens).isdisjoint(prompt.token_ids)

    def _first_time(self, prompt: Prompt) -> bool:
        """Whether a fault is still to be staged for this prompt."""
        if self._script.once is None:
            return True
        marker = Path(self._script.once) / prompt.prompt_key.hex()
        if marker.exists():
            return False
        marker.touch()
        return True

    def _note(self, *words: str) -> None:
        if self._script.diary is not None:
            what, *rest = words
            file = os.open(self._script.diary, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.write(file, f"{' '.join([what, str(os.getpid()), *rest])}\n".encode())
            os.close(file)


def freeze() -> None:
    """Sends half a message, and stops this process as it is."""
    os.write(int(sys.argv[1]), HALF_A_MESSAGE)
    os.kill(os.getpid(), signal.SIGSTOP)


def read_diary(path: str | Path) -> list[list[str]]:
    """[what, process id, prompt's key or helper's id] for each line of a diary; half a line at its end is left out."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]
