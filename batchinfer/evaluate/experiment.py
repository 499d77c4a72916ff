"""What is compared: the arms, the golden rows in two parts, and the metric; refused where the rows cannot tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from batchinfer.core.home import JobData
from batchinfer.errors import InputError, UsageError, counted
from batchinfer.evaluate import arms as arm_makers
from batchinfer.evaluate import halves, power, stats
from batchinfer.evaluate.arms import Arm, Axes
from batchinfer.evaluate.compare import Rows
from batchinfer.evaluate.labelled import POOL, LabelledRows, check_apart, read_labelled
from batchinfer.evaluate.metrics import Metric, metric_of
from batchinfer.evaluate.power import Comparison
from batchinfer.job.reader import Job
from batchinfer.prompting.spec import Example

FIVE_POINTS = 0.05


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """What a person asked of a comparison.

    axes: what arms differ in.
    baseline: the name of the arm that others are compared with; None for the job file's own.
    limit: of golden rows; None for all.
    """

    axes: Axes = field(default_factory=Axes)
    baseline: str | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is to be compared, and on which rows.

    arms: all of them.
    baseline: the place of the arm that others are compared with.
    golden: the rows.
    units: the source row of each.
    dev: for each source row whether it is to choose on.
    metric: what is compared.
    """

    arms: tuple[Arm, ...]
    baseline: int
    golden: LabelledRows
    units: tuple[bytes, ...]
    dev: dict[bytes, bool]
    metric: Metric

    def places(self, *, dev: bool) -> list[int]:
        """The rows to choose on, or those to report on."""
        return [place for place, unit in enumerate(self.units) if self.dev[unit] is dev]

    def rows(self, places: Sequence[int]) -> Rows:
        """Some rows, as arms are compared on them."""
        answers = [self.golden.answers[place] for place in places]
        return Rows(self.metric.wanted(answers), stats.unit_numbers([self.units[place] for place in places]))

    @property
    def comparison(self) -> Comparison:
        """What the rows to choose on can show."""
        share = float(self.metric.wanted(self.golden.answers).mean())
        return Comparison(self.metric.kind, len(self.arms) - 1, share)

    @property
    def rows_for_5_points(self) -> int:
        """How many golden rows in all would show a difference of 0.05 with 80 %."""
        share = len(self.places(dev=True)) / len(self.golden) or 1.0
        return math.ceil(power.rows_wanted(self.comparison, FIVE_POINTS) / share)


def design(job: Job, data: JobData, options: EvalOptions, scratch: Path) -> Experiment:
    """Reads golden rows and pool, and makes the arms. scratch: a folder. Raises BatchinferErrors; asks nothing."""
    if job.spec.prompt is None:
        raise UsageError(f"The job {job.name} has no prompt to compare with others: it has only imported answers.")
    if job.spec.output.type == "likelihood":
        raise UsageError(
            f"The answers of {job.name} are likelihoods, numbers that no golden answer can be compared with."
        )
    data.check_owner(job.path)
    texts = arm_makers.prompts(job, options.axes)
    columns = arm_makers.template_columns(texts, str(job.path))
    golden, compare = _golden(job, data, columns, scratch)
    pool = _pool(job, data, columns, golden, scratch)
    arms = arm_makers.make_arms(job, data, options.axes, texts, pool)
    _check_examples(arms, golden, job)
    units = halves.source_rows(job, golden)
    if options.limit is not None:
        first = sorted(sorted(range(len(golden)), key=lambda place: units[place])[: options.limit])
        golden, units = golden.take(first), tuple(units[place] for place in first)
    share = job.spec.eval.dev
    dev = halves.split_rows(units, golden.answers, share, halves.remembered(data, share))
    baseline = arm_makers.baseline_of(arms, job, data, options.baseline)
    experiment = Experiment(tuple(arms), baseline, golden, units, dev, metric_of(job, compare, golden.answers))
    _check_enough(experiment)
    return experiment


def _golden(job: Job, data: JobData, columns: Sequence[str], scratch: Path) -> tuple[LabelledRows, str]:
    """The golden rows, and how their answers are compared. Raises InputError or SpecError."""
    for place, spec in (("eval.golden.path", job.spec.eval.golden), ("gate.golden.path", job.spec.gate.golden)):
        if spec is not None:
            compare = "equal" if job.spec.output.choices else spec.compare
            return read_labelled(job, data, place, spec.path, compare, columns, scratch), spec.compare
    raise UsageError(
        f"The job {job.name} has no golden rows to compare prompts by",
        fix="name a Parquet file with the key columns and a column answer in eval.golden.path.",
    )


def _pool(job: Job, data: JobData, columns: Sequence[str], golden: LabelledRows, scratch: Path) -> list[Example] | None:
    """The examples of the pool; None without one."""
    name = job.spec.eval.pool
    if name is None:
        return None
    pool = read_labelled(job, data, POOL, name, "equal", columns, scratch)
    check_apart(golden, pool.values, f"{POOL}: {pool.path}", pool.hashes)
    return arm_makers.examples_of(pool, columns)


def _check_examples(arms: Sequence[Arm], golden: LabelledRows, job: Job) -> None:
    """Raises InputError if an arm shows golden rows, which examples of the job file may be."""
    for arm in arms:
        columns = arm.question.template.columns
        shown = [{name: example.input[name] for name in columns} for example in arm.question.examples]
        seen = replace(golden, values=tuple({name: values[name] for name in columns} for values in golden.values))
        check_apart(seen, shown, f"prompt.examples of {job.path}")


def _check_enough(experiment: Experiment) -> None:
    """Raises InputError for fewer golden rows than so many arms need."""
    dev, test = (len(experiment.places(dev=part)) for part in (True, False))
    comparison, arms = experiment.comparison, counted(len(experiment.arms), "arm")
    for places in (experiment.places(dev=True), experiment.places(dev=False)):
        wanted = experiment.metric.wanted([experiment.golden.answers[place] for place in places])
        if experiment.metric.kind == "area" and not (wanted.any() and not wanted.all()):
            raise InputError(
                f"{experiment.golden.path} has too few rows for an area under the ROC curve: each half needs rows whose answer is "
                f"{experiment.metric.positive}, and others; there are {dev} to choose on and {test} to report on."
            )
    if not test or not dev or (len(experiment.arms) > 1 and power.smallest_difference(comparison, dev) is None):
        raise InputError(
            f"{counted(len(experiment.golden), 'golden row')}, of which {dev} are to choose on, cannot show any difference between "
            f"{arms}",
            fix=f"give more golden rows, or fewer arms; a difference of 0.05 needs {experiment.rows_for_5_points:,} golden rows.",
        )
