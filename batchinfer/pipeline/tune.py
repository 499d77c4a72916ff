"""Which engine options answer a job fastest: successive halving on its own misses, whose answers are kept."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from batchinfer.core.home import JobData
from batchinfer.core.records import Info
from batchinfer.engines.devices import find_gpus
from batchinfer.errors import ModelError, UsageError, counted
from batchinfer.job.engine_spec import VllmSpec
from batchinfer.job.reader import Job
from batchinfer.job.yaml_edit import CannotEdit, edited
from batchinfer.pipeline.progress import Console
from batchinfer.pipeline.report import RunReport
from batchinfer.pipeline.run import run
from batchinfer.pipeline.variants import Variants, usual_variants
from batchinfer.planning.prepare import Options, prepare

ROUNDS = 5  # at most; in each of them those that are left are tried once
FEWEST_ROUNDS = 3  # that tell how far one round may be off
FEWEST_ROWS = 8  # of a trial
Ask = Callable[[Job, int], RunReport]
"""Asks so many of a job's misses, and says how it went."""


@dataclass(frozen=True, slots=True)
class TriedOptions:
    """Engine options, and how fast they were.

    options: what differs from the job file; empty for the job's own.
    rows: prompts that were asked with them.
    rows_per_second: the median of their rounds; None where the engine did not load.
    gain: over the job's own in the same rounds, as a share; None like these.
    spread: what lies between its gains in the best and in the worst round; None before there are three.
    problem: why the engine did not load; None if it did.
    """

    options: Mapping[str, Any]
    rows: int
    rows_per_second: float | None
    gain: float | None
    spread: float | None
    problem: str | None

    @property
    def text(self) -> str:
        """The options, for people."""
        return options_text(self.options)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What came of tuning.

    job: its name.
    tried: the options, the fastest first.
    best: those to be set; empty where none are faster than the job's own by more than their spread.
    generated: predictions that were made meanwhile, and are in the cache.
    remaining: prompts that are still to do.
    written: whether the best are in the job file now.
    """

    job: str
    tried: tuple[TriedOptions, ...]
    best: Mapping[str, Any]
    generated: int
    remaining: int
    written: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class _Setting:
    """Options that are tried.

    options: of the engine, beside the job's own.
    rates: rows per second, by round.
    rows: that were asked with them.
    problem: why they cannot be used; None as far as they can.
    """

    options: dict[str, Any]
    rates: dict[int, float] = field(default_factory=dict)
    rows: int = 0
    problem: str | None = None

    def gains(self, own: _Setting) -> list[float]:
        """Over the job's own options, in each round that both were tried in."""
        return [rate / own.rates[number] - 1 for number, rate in self.rates.items() if number in own.rates]

    def gain(self, own: _Setting) -> float:
        """Over all rounds: the geometric mean."""
        gains = self.gains(own)
        return math.exp(statistics.fmean(math.log1p(gain) for gain in gains)) - 1 if gains else -1.0

    def spread(self, own: _Setting) -> float:
        gains = self.gains(own)
        return max(gains) - min(gains) if len(gains) >= FEWEST_ROUNDS else math.inf

    def report(self, own: _Setting) -> TriedOptions:
        if not self.rates:
            return TriedOptions(self.options, self.rows, None, None, None, self.problem)
        spread = self.spread(own)
        rate = round(statistics.median(self.rates.values()), 3)
        told = None if self is own or math.isinf(spread) else round(spread, 4)
        return TriedOptions(self.options, self.rows, rate, round(self.gain(own), 4), told, self.problem)


class _Tuning:
    """The job's own options, those that compete with them, and what asking came to so far."""

    def __init__(
        self, job: Job, options: Sequence[Mapping[str, Any]], rows: int, left: int, ask: Ask, info: Info
    ) -> None:
        """rows: of a trial in the first round. left: prompts that the cache has no answer for."""
        self._job, self._rows, self._ask, self._info = job, rows, ask, info
        self.own = _Setting({})
        self.everyone = [self.own, *(_Setting(dict(each)) for each in options)]
        self._others = self.everyone[1:]
        self.left, self.generated = left, 0

    def run(self) -> None:
        """Rounds, until the fastest is known or the misses are used up."""
        for number in range(ROUNDS):
            if not self._round(number):
                self._info("The list has no more prompts to try options on.")
                return
            self._halve()
            if number == 0:
                self._combine()
            elif self._is_settled():
                return

    def _round(self, number: int) -> bool:
        """Tries each once, forwards and backwards in turns: what the machine does meanwhile is to meet all alike."""
        alive = [self.own, *self._others]
        rows = min(self._rows, self.left // len(alive))
        if rows < FEWEST_ROWS:
            return False
        for setting in alive if number % 2 == 0 else reversed(alive):
            self._try(setting, number, rows)
        self._others = [each for each in self._others if each.problem is None]
        return True

    def _try(self, setting: _Setting, number: int, rows: int) -> None:
        self._info(f"Round {number + 1}: {options_text(setting.options)}, {counted(rows, 'prompt')} ...")
        try:
            report = self._ask(_with_options(self._job, setting.options), rows)
        except ModelError as exc:
            if setting is self.own:
                raise
            setting.problem = str(exc)
            self._info(f"{options_text(setting.options)}: left out. {exc}")
            return
        self.left, self.generated = report.remaining, self.generated + report.generated
        setting.rows += rows
        if report.rows_per_second:
            setting.rates[number] = report.rows_per_second

    def _halve(self) -> None:
        """Keeps the faster half, each of which is asked twice as much in the next round."""
        self._others.sort(key=lambda each: -each.gain(self.own))
        if len(self._others) > 1:
            self._others = self._others[: math.ceil(len(self._others) / 2)]
            self._rows *= 2

    def _combine(self) -> None:
        """Lets the best that were faster compete together, too."""
        together = dict[str, Any]()
        for each in self._others:
            if each.gain(self.own) > 0 and not together.keys() & each.options.keys():
                together |= each.options
        if all(together != each.options for each in self._others) and together:
            self._others.append(_Setting(together))
            self.everyone.append(self._others[-1])

    def _is_settled(self) -> bool:
        """Whether none gains more than its spread, or one is left; as soon as the first of them was tried often enough."""
        if any(len(each.rates) < FEWEST_ROUNDS for each in self._others[:1]):
            return False
        winning = [each.gain(self.own) > each.spread(self.own) for each in self._others]
        return not any(winning) or len(self._others) == 1

    def best(self) -> _Setting:
        """The one with the largest gain that is more than its spread; the job's own where there is none."""
        sure = [each for each in self.everyone if each.gain(self.own) > each.spread(self.own)]
        return max(sure, key=lambda each: each.gain(self.own), default=self.own)


def tune(
    job: Job, data: JobData, options: Sequence[Mapping[str, Any]], rows: int, console: Console, ask: Ask | None = None
) -> TuneReport:
    """Tries engine options, each a change of the job's own. Raises UsageError where too little is left to ask, and as `run` does.

    rows: of a trial in the first round. ask: in place of a run with a limit, whose answers the cache keeps.
    """
    left = _misses(job, data, console)
    needed = FEWEST_ROWS * (len(options) + 1)
    if left < needed:
        raise UsageError(
            f"The cache lacks answers to {counted(left, 'prompt')} of {job.name}, and {needed} are needed to try "
            f"{counted(len(options), 'other setting')}", fix="tune a job before its first long run, or once its list grew.",
        )  # fmt: skip
    tuning = _Tuning(job, options, rows, left, ask or _ask_by_runs(data, console), console.info)
    tuning.run()
    best, own = tuning.best(), tuning.own
    tried = sorted(tuning.everyone, key=lambda each: -each.gain(own))
    return TuneReport(job.name, tuple(each.report(own) for each in tried), best.options, tuning.generated, tuning.left)


def variants_for(job: Job) -> Variants:
    """What is worth a trial for a job on this machine. Raises UsageError for one whose model is not asked by vLLM here."""
    spec = job.spec
    if spec.model is None or spec.prompt is None:
        raise UsageError(f"The job {job.name} asks no model, so there is nothing to tune.")
    if job.large is not None:
        raise UsageError(
            f"The job {job.name} asks two models", fix="tune a job with one of them, and copy its options."
        )
    if not isinstance(spec.engine, VllmSpec):
        raise UsageError(
            f"The job {job.name} has an engine of kind {spec.engine.kind}, and tune sets options of vLLM on this machine."
        )
    may_speculate = not spec.output.is_scored and not spec.sampling.min_p  # vLLM does not do both
    return usual_variants(spec.model.options, on_cpu=not find_gpus(), may_speculate=may_speculate)


def with_best(job: Job, best: Mapping[str, Any]) -> str:
    """The job file's text with these options in it. Raises UsageError where they cannot be put there."""
    assert job.spec.model is not None
    text = job.path.read_text(encoding="utf-8")
    try:
        if job.spec.model.options:
            return edited(text, ("model", "options"), best)
        return edited(text, "model", {"options": dict(best)})
    except CannotEdit as exc:
        raise UsageError(
            f"{job.path} is written so that --write cannot change it",
            fix=f"put {options_text(best)} into model.options yourself.",
        ) from exc


def _misses(job: Job, data: JobData, console: Console) -> int:
    """How many prompts a run would ask."""
    with prepare(job, data, Options(), console.info) as prepared:
        return prepared.plan.counts.to_generate


def _ask_by_runs(data: JobData, console: Console) -> Ask:
    return lambda job, rows: run(job, data, Options(limit=rows, spread=True, purpose="tune"), console)


def _with_options(job: Job, options: Mapping[str, Any]) -> Job:
    """The job with these options beside its own."""
    assert job.spec.model is not None
    model = job.spec.model.model_copy(update={"options": {**job.spec.model.options, **options}})
    return replace(job, spec=job.spec.model_copy(update={"model": model}))


def options_text(options: Mapping[str, Any]) -> str:
    """For people."""
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "the job's own options"
