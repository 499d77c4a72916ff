"""Whether vLLM computes with an adapter what peft does: the adapter is served, and its scores are held against the trainer's."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from batchinfer.core.home import JobData
from batchinfer.core.records import Continuation, Failure, Info, Prompt
from batchinfer.engines import models
from batchinfer.engines.adapter import adapter_modules
from batchinfer.engines.protocol import Engine, Task
from batchinfer.engines.start import vllm_engine
from batchinfer.errors import ModelError
from batchinfer.job.engine_spec import VllmSpec
from batchinfer.job.reader import Job
from batchinfer.planning.question import Question
from batchinfer.training.records import HeldRow, RowScore

BOUND = 0.02  # of log-probabilities of whole candidates, both in float32


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the scores of vLLM and of peft are apart, both in float32.

    rows: that were scored by both.
    largest: difference of the log-probabilities of a candidate.
    bound: that it must keep to.
    """

    rows: int
    largest: float
    bound: float = BOUND

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def check_parity(
    job: Job, data: JobData, question: Question, source: str, adapter: Path, rows: Sequence[HeldRow],
    scores: Sequence[RowScore], info: Info, engine: Engine | None = None,
) -> Parity:  # fmt: skip
    """Serves the adapter in float32. Raises ModelError where vLLM computes something else.

    question: without the adapter. source: of the base model. engine: one that is loaded like that, or None to start one.
    """
    folder = str(adapter)
    config = replace(
        question.engine_config(source),
        dtype="float32",
        adapter=folder,
        adapter_rank=models.adapter_rank(folder),
        adapter_modules=adapter_modules(folder),
    )
    prompts = [
        Prompt(number.to_bytes(16), (), row.prompt, tuple(Continuation(ids) for ids in row.candidates))
        for number, row in enumerate(rows)
    ]
    firsts = _first_tokens(rows)
    task = Task({"temperature": 0.0}, score_tokens=firsts, score_continuations=firsts is None, adapter=folder)
    found: dict[int, tuple[float, ...]] = {}
    # it is trained on this machine, too
    spec = job.spec.engine if isinstance(job.spec.engine, VllmSpec) else VllmSpec()
    own = vllm_engine(job, data, spec, config, info) if engine is None else contextlib.nullcontext(engine)
    with own as ready:
        ready.wait_ready()
        for result in ready.generate(task, prompts):
            if isinstance(result, Failure):
                raise ModelError(f"The adapter is not kept, since vLLM could not answer with it: {result.detail}")
            found[int.from_bytes(result.prompt_key)] = result.logprobs or ()
    parity = Parity(
        len(rows), max(_apart(found[number], score.logprobs) for number, score in enumerate(scores[: len(rows)]))
    )
    if parity.largest > BOUND:
        raise ModelError(
            f"The adapter is not kept: with it vLLM's log-probabilities are up to {parity.largest:.3f} off those that it was trained "
            f"to give, on {len(rows)} rows, where {BOUND} is allowed."
        )
    return parity


def _first_tokens(rows: Sequence[HeldRow]) -> tuple[int, ...] | None:
    """The tokens to score, where the candidates of all rows are the same single ones, as choices are."""
    kinds = {row.candidates for row in rows}
    tokens = kinds.pop()
    if kinds or any(len(ids) != 1 for ids in tokens):
        return None
    return tuple(ids[0] for ids in tokens)


def _apart(one: Sequence[float], other: Sequence[float]) -> float:
    """The largest difference; infinite where one of them lacks a number."""
    if len(one) != len(other):
        return math.inf
    gaps = [abs(mine - theirs) for mine, theirs in zip(one, other, strict=True) if mine != theirs]
    return math.inf if any(map(math.isnan, gaps)) else max(gaps, default=0.0)
