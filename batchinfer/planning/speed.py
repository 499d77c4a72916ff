"""How long a run would take: seconds by what the model has to compute, fitted over this machine's earlier chunks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from batchinfer.cache.chunks import ChunkTime, EngineSetting
from batchinfer.core.keys import canonical_json
from batchinfer.engines.devices import machine_name
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

    prompt_tokens: those that prefix caching does not save.
    output_tokens: of all answers.
    off: by how many these may be more or fewer, as a standard deviation.
    """

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
class Speed:
    """How fast an engine is.

    load: seconds of a run beside generation: loading the model, reading the list, publishing.
    per_prompt_token, per_output_token: seconds of generation for a token that is computed.
    off: how far a chunk's time is from what these say, as a share: its standard deviation.
    chunks: how many they are fitted over.
    """

    load: float
    per_prompt_token: float
    per_output_token: float
    off: float
    chunks: int

    @classmethod
    def of(cls, chunks: Sequence[ChunkTime], load: float) -> Self | None:
        """None where no chunk computed anything."""
        chunks = [chunk for chunk in chunks if chunk.computed_tokens + chunk.output_tokens > 0 and chunk.seconds > 0]
        if not chunks:
            return None
        prompt, output = _fitted(chunks)
        fits = [prompt * chunk.computed_tokens + output * chunk.output_tokens for chunk in chunks]
        squares = sum((chunk.seconds - fit) ** 2 / max(fit, 1e-9) for chunk, fit in zip(chunks, fits, strict=True))
        noise = len(chunks) * squares / sum(fits)
        off = math.sqrt((WORTH * USUAL**2 + noise) / (WORTH + max(len(chunks) - FITTED, 0)))
        return cls(load, prompt, output, off, len(chunks))

    def estimate(self, work: Work) -> TimeEstimate:
        """A run may be as far off as one of its chunks: those of one run are slow or fast together."""
        generation = self.per_prompt_token * work.prompt_tokens + self.per_output_token * work.output_tokens
        pace = self._times() * self.off * math.sqrt(1 + 1 / self.chunks) * generation
        margin = math.hypot(pace, NORMAL * self.per_output_token * work.off)
        low, high = (round(self.load + max(generation + side, 0.0), 1) for side in (-margin, margin))
        return TimeEstimate(round(self.load + generation, 1), low, high, self.chunks)

    def _times(self) -> float:
        """How many standard deviations hold 95 of 100."""
        freedom = WORTH + max(self.chunks - FITTED, 0)
        return T[freedom - 1] if freedom <= len(T) else NORMAL + TAIL / freedom


def _fitted(chunks: Sequence[ChunkTime]) -> tuple[float, float]:
    """Seconds for a prompt's token and for an answer's: non-negative least squares, which for two is the best of three fits.

    Then both are stretched so that all chunks together take what they took: least squares alone do not promise that.
    """
    rows = [(float(chunk.computed_tokens), float(chunk.output_tokens), chunk.seconds) for chunk in chunks]
    pp, oo, po = (sum(row[i] * row[j] for row in rows) for i, j in ((0, 0), (1, 1), (0, 1)))
    pt, ot = (sum(row[i] * row[2] for row in rows) for i in (0, 1))
    found = [(pt / pp if pp else 0.0, 0.0), (0.0, ot / oo if oo else 0.0)]
    if (rest := pp * oo - po * po) > ALIKE * pp * oo:
        found.append(((pt * oo - ot * po) / rest, (ot * pp - pt * po) / rest))
    fits = [(sum((t - a * p - b * o) ** 2 for p, o, t in rows), a, b) for a, b in found if a >= 0 and b >= 0]
    _, prompt, output = min(fits)
    stretch = sum(t for _, _, t in rows) / sum(prompt * p + output * o for p, o, _ in rows)
    return prompt * stretch, output * stretch


def engine_setting(question: Question) -> EngineSetting:
    """What decides how fast a question is answered on this machine."""
    spec = question.spec
    assert spec.model is not None
    engine = spec.engine.model_dump(mode="json", exclude={"stall"})
    options = {"engine": engine, "model": spec.model.model_dump(mode="json", exclude={"id", "revision", "cascade"})}
    return EngineSetting(question.identity.label, machine_name(), canonical_json(options))
