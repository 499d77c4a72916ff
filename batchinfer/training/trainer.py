"""The training process: trains a LoRA adapter on a base model, and scores the held-out rows before and after.

Started as `python -m batchinfer.training.trainer FD`, FD being its end of the pipe.

Messages to it:   a Course first, then ("stop", None)
Messages from it: ("note", sentence), ("scored", Scored), ("step", Step), ("stopped", None), ("failed", sentence), ("done", Trained)
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from batchinfer.core.files import replace_durably
from batchinfer.engines import environment
from batchinfer.engines.adapter import MOST_RANK
from batchinfer.engines.devices import Placement
from batchinfer.engines.models import adapter_rank, why_unloaded
from batchinfer.engines.vllm import adapter_refusal
from batchinfer.errors import BatchinferError, MissingExtra, ModelError
from batchinfer.training.answer_tokens import AnswerTokens
from batchinfer.training.provenance import libraries
from batchinfer.training.records import Course, HeldRow, LearnedRow, RowScore, Scored, Step, TokenIds, Trained
from batchinfer.training.steps import rate_at, steps_of

SAVED_SECONDS = 30.0  # after which it saves a checkpoint
RANKS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SCORED = 32  # sequences at a time
# what torch's errors say, in small letters
NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")


class _EndRequested(Exception):
    """Who started the process wants it to end."""


def main(pipe: Connection) -> None:
    """Trains as the course says. Whatever fails is said in a sentence; the end of who started it ends the process, too."""
    course: Course = pipe.recv()
    prepare_process(course.placement)
    asked = threading.Event()
    threading.Thread(target=_receive, args=(pipe, asked), daemon=True).start()
    try:
        _Training(course, pipe, asked).run()
    except BatchinferError as exc:
        pipe.send(("failed", str(exc)))
    except Exception as exc:  # noqa: BLE001 - torch, transformers and peft raise what they like
        traceback.print_exc()
        pipe.send(("failed", why_failed(exc)))


def why_failed(exc: BaseException) -> str:
    """An error of a library, as a sentence; the log has the rest."""
    said = next((line.strip() for line in str(exc).splitlines() if line.strip()), "")
    if isinstance(exc, MemoryError) or any(words in said.lower() for words in NO_MEMORY):
        return "The training ran out of memory: set finetune.batch lower, shorten the prompt, or take a smaller model."
    return f"The training failed: {type(exc).__name__}{': ' if said else ''}{said.rstrip('.')}."


def prepare_process(placement: Placement) -> None:
    """Settings that must be made before torch is imported. Leaves Ctrl-C to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(TOKENIZERS_PARALLELISM="false", VLLM_NO_USAGE_STATS="1", HF_HUB_DISABLE_TELEMETRY="1")
    for name in [name for name in os.environ if name.startswith("ACCELERATE_") or name in RANKS]:
        del os.environ[name]  # what was meant for another program: 16 bits, or a part of a cluster
    environment.hide_vision_packages()
    if placement.is_cpu:
        environment.prepare_cpu(list(placement.cores))
    else:
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-smi counts them
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpu.index for gpu in placement.gpus)


def _need_sft() -> None:
    """Raises MissingExtra where TRL is not there, or too old, before hours of scoring."""
    try:
        from batchinfer.training import sft  # noqa: F401
    except (ImportError, RuntimeError) as exc:  # it loads its own parts late, and says so by a RuntimeError
        raise MissingExtra("trl", "trl") from exc


def _receive(pipe: Connection, asked: threading.Event) -> None:
    while True:
        try:
            pipe.recv()
            asked.set()
        except (EOFError, OSError):  # nobody wants the adapter any more
            os._exit(1)


class _Training:
    """One training, from the base model to the adapter in its folder."""

    def __init__(self, course: Course, pipe: Connection, asked: threading.Event) -> None:
        self._course, self._pipe, self._asked = course, pipe, asked
        self._losses: list[float] = []
        self._before: list[RowScore] = []
        self._after: list[RowScore] = []
        self._seconds = 0.0

    def run(self) -> None:
        self._ask_vllm()
        self._load()
        try:
            self._go()
        except _EndRequested:
            self._save()
            self._pipe.send(("stopped", None))
            return
        learned = Trained(
            tuple(self._losses), self._seconds, tuple(self._before), tuple(self._after), libraries(self._course.trainer)
        )
        self._pipe.send(("done", learned))

    def _go(self) -> None:
        """From where an earlier process was to the adapter in its folder. Raises _EndRequested."""
        if known := self._checkpoint():
            self._note(f"Going on after step {known:,}.")
        if not self._before:
            self._note(f"Scoring {len(self._course.held):,} held-out rows with the base model ...")
            self._before = self._scores(self._course.held)
        self._train()
        if not self._after:
            self._save()
            self._note("Scoring them with the adapter ...")
            self._after = self._scores([*self._course.held, *self._course.further])
        self._save()
        self._write()

    def _heed(self) -> None:
        """Raises _EndRequested if it was asked to end."""
        if self._asked.is_set():
            raise _EndRequested

    def _note(self, sentence: str) -> None:
        self._pipe.send(("note", sentence))

    def _ask_vllm(self) -> None:
        """Has vLLM look at the config that the adapter will have. Raises ModelError if it would not load such a one."""
        try:
            from peft import LoraConfig
        except ImportError as exc:
            raise MissingExtra("peft", "finetune") from exc
        course = self._course
        if course.trainer == "trl":
            _need_sft()
        self._config = LoraConfig(
            r=course.rank, lora_alpha=_plain(course.alpha), lora_dropout=0.0, target_modules="all-linear", bias="none",
            task_type="CAUSAL_LM", base_model_name_or_path=course.label,
        )  # fmt: skip
        self._config.save_pretrained(str(course.draft))
        if refusal := adapter_refusal(course.draft, min(adapter_rank(str(course.draft)), MOST_RANK)):
            raise ModelError(f"vLLM would not load such an adapter, so nothing was trained: {refusal}")

    def _load(self) -> None:
        import torch
        from peft import get_peft_model

        torch.manual_seed(self._course.seed)
        self._device = "cpu" if self._course.placement.is_cpu else "cuda"
        model = load_base(self._course.source, self._course.revision).to(self._device)
        self._model = get_peft_model(model, self._config)
        self._weights = [part for part in self._model.parameters() if part.requires_grad]
        self._optimizer = torch.optim.AdamW(self._weights, lr=self._course.learning_rate, weight_decay=0.0)

    def _train(self) -> None:
        """Takes all steps that are left. Raises _EndRequested after the step that is under way."""
        course = self._course
        plan = list(steps_of(course.learned, course.batch, course.epochs, course.seed))
        left, self._count = plan[len(self._losses) :], len(plan)
        self._model.train()
        self._saved = time.monotonic()
        self._began = self._saved - self._seconds
        if course.trainer == "trl":
            from batchinfer.training.sft import take_steps

            take_steps(course, self._model, self._optimizer, left, self._set_rate, self._note_step)
            return
        for batch in left:
            self._set_rate()
            self._note_step(self._step(batch))

    def _set_rate(self) -> None:
        """That of the next step."""
        rate = rate_at(len(self._losses) + 1, self._count) * self._course.learning_rate
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def _step(self, batch: Sequence[LearnedRow]) -> float:
        """One step; returns the loss before it: the mean over the answers' tokens."""
        loss = -self._of_answers([(row.prompt, row.answer) for row in batch]).logprobs.mean()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())

    def _note_step(self, loss: float) -> None:
        """What is to be done after each. Raises ModelError for a loss that is none, and _EndRequested."""
        number = len(self._losses) + 1
        if not math.isfinite(loss):
            raise ModelError(f"The loss of step {number:,} is no number any more: take a lower finetune.learning_rate.")
        self._losses.append(loss)
        self._seconds = time.monotonic() - self._began
        self._pipe.send(("step", Step(number, self._count, loss, self._seconds)))
        self._heed()
        if time.monotonic() - self._saved > SAVED_SECONDS:
            self._save()
            self._saved = time.monotonic()

    def _of_answers(self, rows: Sequence[tuple[TokenIds, TokenIds]]) -> AnswerTokens:
        """What the model gives the tokens of answers that follow prompts, row by row in one go."""
        import torch

        longest = max(len(prompt) + len(answer) - 1 for prompt, answer in rows)
        most = max(len(answer) for _, answer in rows)
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        goals = torch.full((len(rows), most), -1)
        for number, (prompt, answer) in enumerate(rows):  # to the left, so that all answers end together
            whole = [*prompt, *answer[:-1]]
            ids[number, longest - len(whole) :] = torch.tensor(whole)
            mask[number, longest - len(whole) :] = 1
            goals[number, most - len(answer) :] = torch.tensor(answer)
        ids, mask, goals = (tensor.to(self._device) for tensor in (ids, mask, goals))
        places = (mask.cumsum(1) - 1).clamp(min=0)
        logits = self._model(
            input_ids=ids, attention_mask=mask, position_ids=places, logits_to_keep=most, use_cache=False
        ).logits[:, -most:]
        return AnswerTokens(logits, goals)

    def _scores(self, rows: Sequence[HeldRow]) -> list[RowScore]:
        """Scores of the candidates of each row. Candidates that differ in their last token alone share a pass. Raises _EndRequested."""
        import torch

        asked: dict[tuple[int, TokenIds], list[int]] = {}
        for number, row in enumerate(rows):
            for place, candidate in enumerate(row.candidates):
                asked.setdefault((number, candidate[:-1]), []).append(place)
        found = [[0.0] * len(row.candidates) for row in rows]
        greedy = [False] * len(rows)
        order = sorted(asked, key=lambda each: len(rows[each[0]].prompt) + len(each[1]))
        self._model.eval()
        with torch.inference_mode():
            for start in range(0, len(order), SCORED):
                part = order[start : start + SCORED]
                firsts = [rows[number].candidates[asked[number, lead][0]] for number, lead in part]
                said = self._of_answers(
                    [(rows[number].prompt, first) for (number, _), first in zip(part, firsts, strict=True)]
                )
                for at, (number, lead) in enumerate(part):
                    row = rows[number]
                    for place in asked[number, lead]:
                        found[number][place] = said.logprob(at, row.candidates[place])
                        greedy[number] |= place == row.right and said.is_greedy(at, row.candidates[place])
                self._pipe.send(("scored", Scored(start + len(part), len(order))))
                self._heed()
        return [RowScore(tuple(logprobs), best) for logprobs, best in zip(found, greedy, strict=True)]

    def _save(self) -> None:
        """Writes the checkpoint, as a whole."""
        import torch
        from peft import get_peft_model_state_dict

        draft = self._course.checkpoint.with_name(f".{self._course.checkpoint.name}")
        state = {
            "digest": self._course.digest, "losses": self._losses, "seconds": self._seconds,
            "before": _plain_scores(self._before), "after": _plain_scores(self._after),
            "weights": get_peft_model_state_dict(self._model), "optimizer": self._optimizer.state_dict(),
        }  # fmt: skip
        torch.save(state, draft)
        replace_durably(draft, self._course.checkpoint)

    def _checkpoint(self) -> int:
        """Takes up what an earlier process saved of the same training; its last step, or 0 where there is none."""
        import torch
        from peft import set_peft_model_state_dict

        try:
            state = torch.load(self._course.checkpoint, weights_only=True, map_location=self._device)
            if state["digest"] != self._course.digest:
                return 0
            set_peft_model_state_dict(self._model, state["weights"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._losses, self._seconds = list(state["losses"]), float(state["seconds"])
            self._before, self._after = (
                [RowScore(tuple(logprobs), greedy) for logprobs, greedy in state[name]] for name in ("before", "after")
            )
        except FileNotFoundError:
            return 0
        except Exception as exc:
            raise ModelError(
                f"The checkpoint {self._course.checkpoint} cannot be used ({type(exc).__name__}): remove it, and train from the beginning."
            ) from exc
        return len(self._losses)

    def _write(self) -> None:
        """Writes the adapter, always in the same form."""
        draft = self._course.draft
        self._model.save_pretrained(str(draft))
        (draft / "README.md").unlink(missing_ok=True)  # a form to be filled in
        config = json.loads((draft / "adapter_config.json").read_text(encoding="utf-8"))
        config |= {"target_modules": sorted(config["target_modules"]), "base_model_name_or_path": self._course.label}
        (draft / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def load_base(source: str, revision: str | None) -> Any:
    """The base model in float32. Raises ModelError."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            source, revision=revision, dtype=torch.float32, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as exc:
        raise ModelError(f"The model {source} cannot be loaded for training: {why_unloaded(exc)}") from exc


def _plain_scores(scores: Sequence[RowScore]) -> list[list[Any]]:
    """Scores as torch saves them."""
    return [[list(score.logprobs), score.greedy] for score in scores]


def _plain(number: float) -> float:
    """A whole number as such, as others write it into adapters' configs."""
    return int(number) if number == int(number) else number


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
