"""What the answers of arms come to: each arm's figures, the test of the chosen one, its best cut-off, and every row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchinfer.core.arrays import Floats
from batchinfer.core.clock import shown
from batchinfer.evaluate import power, stats
from batchinfer.evaluate.answers import ArmAnswer
from batchinfer.evaluate.ask import AskedArm
from batchinfer.evaluate.compare import Judged, figure_of, judge_arms
from batchinfer.evaluate.experiment import Experiment
from batchinfer.evaluate.report import ArmReport, Calibration, CutOff, EvalReport, MarkedAnswer, TestReport
from batchinfer.job.reader import Job

Answers = dict[bytes, ArmAnswer]
"""An arm's answers by the hash of the lookup key."""


def _given(experiment: Experiment, answers: Answers, places: Sequence[int]) -> list[ArmAnswer]:
    return [answers[experiment.golden.hashes[place]] for place in places]


def marks_of(experiment: Experiment, answers: Answers, places: Sequence[int]) -> Floats:
    """An arm's figure for each of some rows, as the metric has it."""
    right = [experiment.golden.answers[place] for place in places]
    return experiment.metric.marks(_given(experiment, answers, places), right)


def tested(experiment: Experiment, found: Sequence[Answers], chosen: int) -> TestReport:
    """The chosen arm and the baseline on the rows that nothing was chosen on."""
    places, metric = experiment.places(dev=False), experiment.metric
    rows = experiment.rows(places)
    baseline = marks_of(experiment, found[experiment.baseline], places)
    if chosen == experiment.baseline:
        alone = figure_of(metric, baseline, rows)
        return TestReport(alone, alone)
    first, second = judge_arms(metric, [baseline, marks_of(experiment, found[chosen], places)], 0, rows)
    return TestReport(second.figure, first.figure, second.difference, second.p)


def cut_off_of(job: Job, experiment: Experiment, answers: Answers) -> CutOff | None:
    """The best cut-off of the chosen arm's scores, for two choices, or for one of several that eval.positive names."""
    positive = job.spec.deciding_choice
    if positive is None:
        return None
    shares: dict[bool, tuple[Floats, NDArray[np.bool_]]] = {}
    for part in (True, False):
        places = [place for place in experiment.places(dev=part) if answers[experiment.golden.hashes[place]].scores]
        scores = [(each.scores or {})[positive] for each in _given(experiment, answers, places)]
        shares[part] = np.array(scores), np.array([experiment.golden.answers[place] == positive for place in places])
    if not all(len(scores) for scores, _ in shares.values()):
        return None
    best = stats.best_cut_off(*shares[True])
    right = [
        float(((scores >= cut) == up).mean())
        for (scores, up), cut in ((shares[True], best), (shares[False], best), (shares[False], 0.5))
    ]
    return CutOff(positive, best, *right)


def _calibration(answers: Sequence[ArmAnswer], right: Sequence[Any]) -> Calibration | None:
    """How far the scores of the answers are from the shares of right ones."""
    scored = [
        (answer.score, answer.value == wanted)
        for answer, wanted in zip(answers, right, strict=True)
        if answer.score is not None
    ]
    if not scored:
        return None
    bins = stats.reliability(np.array([score for score, _ in scored]), np.array([is_right for _, is_right in scored]))
    return Calibration(stats.calibration_error(bins), tuple(bins))


def planned_arm(experiment: Experiment, asked: AskedArm, *, asks: bool) -> ArmReport:
    """An arm before it is asked. asks: whether it is, and no other arm in its place."""
    arm, counts = asked.arm, asked.prepared.plan.counts
    rows = len(experiment.places(dev=True))
    return ArmReport(
        arm.name, arm.shots, arm.draw, arm.model, rows, counts.cached, counts.to_generate if asks else 0
    )  # fmt: skip


def judged_arm(experiment: Experiment, asked: AskedArm, answers: Answers, judged: Judged, *, asks: bool) -> ArmReport:
    """An arm with what was found of it on the rows to choose on."""
    dev = experiment.places(dev=True)
    given, right = _given(experiment, answers, dev), [experiment.golden.answers[place] for place in dev]
    prompts, outputs = (
        [tokens for each in given if (tokens := getattr(each, name)) is not None]
        for name in ("prompt_tokens", "output_tokens")
    )
    return replace(
        planned_arm(experiment, asked, asks=asks),
        judged=judged,
        failed=sum(each.value is None for each in given),
        prompt_tokens=sum(prompts) / len(prompts) if prompts else None,
        output_tokens=sum(outputs) / len(outputs) if outputs else None,
        seconds_per_row=asked.seconds / asked.progress.done if asked.progress.done else None,
        calibration=_calibration(given, right),
    )


def planned_report(job: Job, experiment: Experiment, reports: Sequence[ArmReport]) -> EvalReport:
    """What is known before any arm is asked."""
    dev, test = (len(experiment.places(dev=part)) for part in (True, False))
    comparison = experiment.comparison
    return EvalReport(
        job=job.name, number=None, metric=experiment.metric.name, positive=experiment.metric.positive, dev=dev, test=test,
        arms=tuple(reports), baseline=experiment.arms[experiment.baseline].name, chosen=None, tested=None, cut_off=None,
        generated=0, smallest_difference=power.smallest_difference(comparison, dev), rows_for_5_points=experiment.rows_for_5_points,
        assumption=comparison.assumption,
    )  # fmt: skip


def marked_answers(experiment: Experiment, found: Sequence[Answers], chosen: int) -> list[MarkedAnswer]:
    """Each row of each arm; of the rows to report on those of the chosen arm and the baseline."""
    marked = []
    for number, (arm, answers) in enumerate(zip(experiment.arms, found, strict=True)):
        places = experiment.places(dev=True) + (
            experiment.places(dev=False) if number in (chosen, experiment.baseline) else []
        )
        marks = marks_of(experiment, answers, places)
        for place, mark in zip(places, marks, strict=True):
            half = "dev" if experiment.dev[experiment.units[place]] else "test"
            query = json.dumps(experiment.golden.queries[place], ensure_ascii=False, default=shown)
            given = answers[experiment.golden.hashes[place]]
            marked.append(MarkedAnswer(arm.name, half, query, experiment.golden.answers[place], given, float(mark)))
    return marked
