"""How long a run would take: seconds by what the model has to compute, fitted over this machine's earlier chunks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from batchinfer.cache.chunks import ChunkTime, EngineSetting
from batchinfer.core.keys import canonical_json
from batchinfer.engines.devices import find_gpus, machine_name
from batchinfer.engines.vllm import CPU_SEQUENCES, GPU_SEQUENCES
from batchinfer.planning.question import Question

# How far a chunk is off before anything is known of that, as a share, and how many chunks that is worth.
USUAL, WORTH = 0.15, 3
ALIKE = 1e-9  # of two columns: the share of their squares that is left where one is all but a multiple of the other
# Student's t at 97.5 %, for 1 degree of freedom and more; beyond them it comes near to the normal distribution's as TAIL says.
T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
NORMAL, TAIL = 1.96, 2.5
FITTED = 2  # numbers that are fitted


@dataclass(frozen=True, slots=True)
class Work:
    """What a model has to compute.

    rows: prompts.
    prompt_tokens: those of them that prefix caching does not save.
    output_tokens: of all answers.
    off: by how many these may be more or fewer, as a standard deviation.
    """

    rows: int
    prompt_tokens: float
    output_tokens: float
    off: float = 0.0


@dataclass(frozen=True, slots=True)
class TimeEstimate:
    """How long something would take.

    seconds: most likely.
    low, high: a 95 % interval; None where no chunk tells it, but rates of older runs.
    chunks: by how many it is known.
    """

    seconds: float
    low: float | None
    high: float | None
    chunks: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of generation for a token that is computed.

    prompt: of a prompt.
    output: of an answer.
    """

    prompt: float
    output: float

    def seconds(self, prompt_tokens: float, output_tokens: float) -> float:
        return self.prompt * prompt_tokens + self.output * output_tokens


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast an engine is.

    load: seconds of a run beside generation: loading the model, reading the list, publishing.
    room: prompts that it works on at a time.
    full: its pace while it has so many. With fewer, an answer's token takes longer, as if others were written beside it.
    any: its pace as if that made no difference: the truth lies between the two.
    off: how far a chunk's time is from what `full` says, as a share: its standard deviation.
    chunks: how many they are fitted over.
    """

    load: float
    room: int
    full: Pace
    any: Pace
    off: float
    chunks: int

    @classmethod
    def of(cls, runs: Sequence[Sequence[ChunkTime]], load: float, room: int) -> Self | None:
        """runs: the chunks of each. None where no chunk computed anything."""
        seen = [
            (
                float(chunk.computed_tokens),
                float(chunk.output_tokens),
                _share(sum(each.rows for each in run), room),
                chunk.seconds,
            )
            for run in runs
            for chunk in run
            if chunk.computed_tokens + chunk.output_tokens > 0 and chunk.seconds > 0
        ]
        if not seen:
            return None
        full = [(prompt, output / share, seconds) for prompt, output, share, seconds in seen]
        pace = _fitted(full)
        fits = [(pace.seconds(prompt, output), seconds) for prompt, output, seconds in full]
        squares = sum((seconds - fit) ** 2 / max(fit, 1e-9) for fit, seconds in fits)
        noise = len(seen) * squares / sum(fit for fit, _ in fits)
        off = math.sqrt((WORTH * USUAL**2 + noise) / (WORTH + max(len(seen) - FITTED, 0)))
        apart = _fitted([(prompt, output, seconds) for prompt, output, _, seconds in seen])
        return cls(load, room, pace, apart, off, len(seen))

    def estimate(self, work: Work) -> TimeEstimate:
        """A run may be as far off as one of its chunks: those of one run are slow or fast together."""
        seconds = self.full.seconds(work.prompt_tokens, work.output_tokens / _share(work.rows, self.room))
        other = self.any.seconds(work.prompt_tokens, work.output_tokens)
        share = self._times() * self.off * math.sqrt(1 + 1 / self.chunks)
        length = NORMAL * self.any.output * work.off
        low = max(min(seconds, other) - math.hypot(share * min(seconds, other), length), 0.0)
        high = max(seconds, other) + math.hypot(share * max(seconds, other), length)
        seconds, low, high = (round(self.load + each, 1) for each in (seconds, low, high))
        return TimeEstimate(seconds, low, high, self.chunks)

    def _times(self) -> float:
        """How many standard deviations hold 95 of 100."""
        freedom = WORTH + max(self.chunks - FITTED, 0)
        return T[freedom - 1] if freedom <= len(T) else NORMAL + TAIL / freedom


def _share(rows: int, room: int) -> float:
    """Of the room for prompts that so many of them take."""
    return min(max(rows, 1), room) / room


def _fitted(rows: Sequence[tuple[float, float, float]]) -> Pace:
    """Over tokens of prompts, tokens of answers, and seconds: non-negative least squares, which for two is the best of three fits.

    Then both are stretched so that all rows together take what they took: least squares alone do not promise that.
    """
    pp, oo, po = (sum(row[i] * row[j] for row in rows) for i, j in ((0, 0), (1, 1), (0, 1)))
    pt, ot = (sum(row[i] * row[2] for row in rows) for i in (0, 1))
    found = [Pace(pt / pp if pp else 0.0, 0.0), Pace(0.0, ot / oo if oo else 0.0)]
    if (rest := pp * oo - po * po) > ALIKE * pp * oo:
        found.append(Pace((pt * oo - ot * po) / rest, (ot * pp - pt * po) / rest))
    best = min(
        (pace for pace in found if pace.prompt >= 0 and pace.output >= 0),
        key=lambda pace: sum((seconds - pace.seconds(prompt, output)) ** 2 for prompt, output, seconds in rows),
    )
    stretch = sum(seconds for *_, seconds in rows) / sum(best.seconds(prompt, output) for prompt, output, _ in rows)
    return Pace(best.prompt * stretch, best.output * stretch)


def engine_setting(question: Question) -> EngineSetting:
    """What decides how fast a question is answered on this machine."""
    spec = question.spec
    assert spec.model is not None
    engine = spec.engine.model_dump(mode="json", exclude={"stall"})
    options = {"engine": engine, "model": spec.model.model_dump(mode="json", exclude={"id", "revision", "cascade"})}
    return EngineSetting(question.identity.label, machine_name(), canonical_json(options))


def engine_room(question: Question) -> int:
    """How many prompts an engine works on at a time, as far as the job file and the device tell."""
    spec = question.spec
    assert spec.model is not None
    usual = GPU_SEQUENCES if find_gpus() else CPU_SEQUENCES
    most, copies = spec.model.options.get("max_num_seqs"), getattr(spec.engine, "replicas", 1)
    return (most if isinstance(most, int) and most > 0 else usual) * (copies if isinstance(copies, int) else 1)
