"""How long a run would take: seconds by what the model has to compute, fitted over this machine's earlier chunks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from batchinfer.cache.chunks import ChunkTime, EngineSetting
from batchinfer.core.keys import canonical_json
from batchinfer.engines.devices import find_gpus, machine_name
from batchinfer.engines.vllm import CPU_SEQUENCES, GPU_SEQUENCES
from batchinfer.job.engine_spec import LOCAL, EngineSpec, RaySpec, ServerSpec
from batchinfer.planning.question import Question

# What is taken for granted before anything is known, and how many runs that is worth: how far a run is off its pace, as a share;
# and how many times as long as a prompt's token an answer's takes.
USUAL, WORTH, RATIO = 0.15, 3, 10.0
LOADS = 0.5  # how far loading is off, as a share, before it is known of several runs
# Student's t at 97.5 %, for 1 degree of freedom and more; beyond them it comes near to the normal distribution's as TAIL says.
T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
NORMAL, TAIL = 1.96, 2.5
# fields of engine that make it fast or slow
DECIDES = ("kind", "replicas", "tensor_parallel", "address", "base_url", "in_flight", "cpus")
PLACED = ("kind", "tensor_parallel", "replicas", "address", "cpus")  # those of them that no other setting makes up for
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
    chunks: by how many stretches of earlier runs it is known; 0 where only their rates are.
    """

    seconds: float
    low: float | None
    high: float | None
    chunks: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of generation for a token that is computed, by non-negative least squares of relative errors.

    prompt: of a prompt.
    output: of an answer.
    covariance: of these two, as far as they are not known: its three numbers, prompt's, both's, output's.
    """

    prompt: float
    output: float
    covariance: tuple[float, float, float]

    def seconds(self, prompt_tokens: float, output_tokens: float) -> float:
        return self.prompt * prompt_tokens + self.output * output_tokens

    def variance(self, prompt_tokens: float, output_tokens: float) -> float:
        """Of these seconds, for want of knowing the pace: large for a mix that was not seen."""
        own, both, other = self.covariance
        return prompt_tokens**2 * own + 2 * prompt_tokens * output_tokens * both + output_tokens**2 * other

    @classmethod
    def of(cls, rows: Sequence[tuple[float, float, float]]) -> Self:
        """Over tokens of prompts, tokens of answers, and seconds.

        A single mix of tokens cannot tell the two apart: then an answer's token takes RATIO times as long, give or take as much.
        """
        whole = sum(seconds for *_, seconds in rows)
        usual = whole / sum(prompt + RATIO * output for prompt, output, _ in rows)
        priors = (usual, RATIO * usual)
        weights = [1 / (USUAL * seconds) ** 2 for *_, seconds in rows]
        pp, po, oo = (
            sum(weight * row[i] * row[j] for weight, row in zip(weights, rows, strict=True))
            for i, j in ((0, 0), (0, 1), (1, 1))
        )
        pt, ot = (sum(weight * row[i] * row[2] for weight, row in zip(weights, rows, strict=True)) for i in (0, 1))
        pp, oo = pp + 1 / priors[0] ** 2, oo + 1 / priors[1] ** 2
        pt, ot = pt + 1 / priors[0], ot + 1 / priors[1]
        rest = pp * oo - po * po
        prompt, output = (pt * oo - ot * po) / rest, (ot * pp - pt * po) / rest
        if prompt < 0 or output < 0:
            prompt, output = (0.0, ot / oo) if prompt < 0 else (pt / pp, 0.0)
        return cls(prompt, output, (oo / rest, -po / rest, pp / rest))


@dataclass(frozen=True, slots=True)
class LoadTime:
    """Seconds of a run beside generation: loading the model, reading the list, publishing.

    seconds: usually.
    off: by how many that may be off, as a standard deviation.
    """

    seconds: float
    off: float

    @classmethod
    def of(cls, found: Sequence[float]) -> Self | None:
        """Of earlier runs; None without one."""
        if not found:
            return None
        usual = statistics.median(found)
        squares = sum((each - usual) ** 2 for each in found)
        return cls(usual, math.sqrt(((LOADS * usual) ** 2 + squares) / len(found)))


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast an engine is.

    load: what a run takes beside generation; None where nobody knows.
    room: prompts that it works on at a time.
    full: its pace while it has so many. With fewer, an answer's token takes longer, as if others were written beside it.
    any: its pace as if that made no difference: the truth lies between the two.
    off: how far a run's time is from what `full` says, as a share: its standard deviation.
    chunks: how many stretches of runs they are fitted over.
    """

    load: LoadTime | None
    room: int
    full: Pace
    any: Pace
    off: float
    chunks: int

    @classmethod
    def of(cls, runs: Sequence[Sequence[ChunkTime]], load: LoadTime | None, room: int) -> Self | None:
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
        pace = Pace.of(full)
        squares = sum((seconds / max(pace.seconds(prompt, output), 1e-9) - 1) ** 2 for prompt, output, seconds in full)
        off = math.sqrt((WORTH * USUAL**2 + squares) / (WORTH + max(len(seen) - FITTED, 0)))
        return cls(
            load,
            room,
            pace,
            Pace.of([(prompt, output, seconds) for prompt, output, _, seconds in seen]),
            off,
            len(seen),
        )

    def estimate(self, work: Work) -> TimeEstimate:
        """With no interval where nobody knows how long loading takes, or an answer's token."""
        full = (work.prompt_tokens, work.output_tokens / _share(work.rows, self.room))
        ends = sorted(
            [(self.full, full), (self.any, (work.prompt_tokens, work.output_tokens))],
            key=lambda end: end[0].seconds(*end[1]),
        )
        margins = [self._margin(pace, tokens, work.off) for pace, tokens in ends]
        load = self.load or LoadTime(0.0, 0.0)
        seconds = round(load.seconds + self.full.seconds(*full), 1)
        if self.load is None:
            return TimeEstimate(seconds, None, None, self.chunks)
        lowest, highest = (pace.seconds(*tokens) for pace, tokens in ends)
        low = max(load.seconds + lowest - margins[0], 0.0)
        return TimeEstimate(seconds, round(low, 1), round(load.seconds + highest + margins[1], 1), self.chunks)

    def _margin(self, pace: Pace, tokens: tuple[float, float], off: float) -> float:
        """Of 95 of 100 runs: by noise, by what is not known of the pace, of the lengths of answers, and of loading."""
        freedom = WORTH + max(self.chunks - FITTED, 0)
        times = T[freedom - 1] if freedom <= len(T) else NORMAL + TAIL / freedom
        noise = (self.off * pace.seconds(*tokens)) ** 2 + (self.off / USUAL) ** 2 * pace.variance(*tokens)
        return math.hypot(
            times * math.sqrt(noise), NORMAL * pace.output * off, NORMAL * self.load.off if self.load else 0.0
        )


def _share(rows: int, room: int) -> float:
    """Of the room for prompts that so many of them take."""
    return min(max(rows, 1), room) / room


def engine_setting(question: Question) -> EngineSetting:
    """What decides how fast a question is answered here, or by a server."""
    spec, engine = question.spec, question.spec.engine
    assert spec.model is not None
    machine = _machine(engine)
    kept = {name: value for name, value in engine.model_dump(mode="json").items() if name in DECIDES}
    options = {"engine": kept, "model": spec.model.model_dump(mode="json", exclude={"id", "revision", "cascade"})}
    place = {name: value for name, value in kept.items() if name in PLACED}
    return EngineSetting(question.identity.exact_label, f"{machine} {canonical_json(place)}", canonical_json(options))


def _machine(engine: EngineSpec) -> str:
    """Where the model is computed: at a server, on a cluster, whose nodes nobody knows before the run, or here."""
    if isinstance(engine, ServerSpec):
        return engine.base_url
    if isinstance(engine, RaySpec) and engine.address != LOCAL:
        return "a cluster"
    return machine_name()


def engine_room(question: Question) -> int:
    """How many prompts an engine works on at a time, as far as the job file and the device tell."""
    spec = question.spec
    assert spec.model is not None
    usual = CPU_SEQUENCES if isinstance(spec.engine, ServerSpec) or not find_gpus() else GPU_SEQUENCES
    most, copies = spec.model.options.get("max_num_seqs"), getattr(spec.engine, "replicas", 1)
    return (most if isinstance(most, int) and most > 0 else usual) * (copies if isinstance(copies, int) else 1)
