"""Which prompt is better: arms are asked through the cache, judged, and one is chosen and tested."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from batchinfer.core.home import JobData
from batchinfer.engines.protocol import Engine
from batchinfer.evaluate import findings, halves
from batchinfer.evaluate.answers import read_arm
from batchinfer.evaluate.arms import Arm
from batchinfer.evaluate.ask import AskedArm, Session, ask_arms, beside_cache
from batchinfer.evaluate.compare import choose, judge_arms
from batchinfer.evaluate.experiment import EvalOptions, Experiment, design
from batchinfer.evaluate.report import EvalReport, MarkedAnswer, write_report
from batchinfer.job.reader import Job
from batchinfer.pipeline.progress import Console
from batchinfer.pipeline.stop import stopping
from batchinfer.planning.prepare import holding_run_lock


def dry_run(job: Job, data: JobData, options: EvalOptions, console: Console) -> EvalReport:
    """What a comparison would ask, and what so many golden rows can show. Asks nothing, stores nothing."""
    with data.scratch() as scratch:
        experiment = design(job, data, options, scratch)
        rows, to_ask = _write_rows(experiment, scratch), _places_to_ask(experiment)
        reports = []
        for place, arm in enumerate(experiment.arms):
            with beside_cache(arm, data, rows[place], console, writes=False) as asked:
                reports.append(findings.planned_arm(experiment, asked, asks=place in to_ask))
    return findings.planned_report(job, experiment, reports)


def compare_prompts(
    job: Job, data: JobData, options: EvalOptions, console: Console, engine: Engine | None = None
) -> tuple[EvalReport, Arm]:
    """Asks all arms through the cache, compares them, chooses one; returns what was found, and the chosen arm.

    engine: one that is already loaded and answers all arms, or None to start each model's. Raises Stopped and other
    BatchinferErrors; what was committed stays.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(holding_run_lock(job, data, f"batchinfer eval {job.name}", None, console.info))
        stop = stack.enter_context(stopping(None, console.info))
        scratch = stack.enter_context(data.scratch())
        experiment = design(job, data, options, scratch)
        data.bind(job.path)
        halves.remember_halves(data, job.spec.eval.dev, halves.remembered(data, job.spec.eval.dev) | experiment.dev)
        number = _next_number(data)
        session = Session(data, number, console, stop, engine)
        rows = _write_rows(experiment, scratch)
        arms = [
            stack.enter_context(beside_cache(arm, data, rows[place], console, writes=True))
            for place, arm in enumerate(experiment.arms)
        ]
        report, results, chosen = _compare(job, experiment, arms, session, scratch)
        report = replace(report, number=number)
        write_report(data.evals / str(number), report, results)
    return report, experiment.arms[chosen]


def _next_number(data: JobData) -> int:
    """The number of a new comparison, which names its folder."""
    taken = [int(path.name) for path in data.evals.glob("*") if path.name.isdecimal()] if data.evals.is_dir() else []
    return max(taken, default=0) + 1


def _write_rows(experiment: Experiment, scratch: Path) -> list[Path]:
    """The list of each arm: the rows to choose on, of the baseline all."""
    golden, dev = experiment.golden, scratch / "dev.parquet"
    whole = golden.write(scratch / "golden.parquet")
    golden.take(experiment.places(dev=True)).write(dev)
    return [whole if place == experiment.baseline else dev for place in range(len(experiment.arms))]


def _places_to_ask(experiment: Experiment) -> frozenset[int]:
    """The places of the arms that are asked: of those that differ in how answers are read alone, one.

    That is the baseline where it is among them: its rows are all that there are.
    """
    arms = experiment.arms
    once = {arms[place].question.fingerprint: place for place in (*reversed(range(len(arms))), experiment.baseline)}
    return frozenset(once.values())


def _compare(
    job: Job, experiment: Experiment, arms: Sequence[AskedArm], session: Session, scratch: Path
) -> tuple[EvalReport, list[MarkedAnswer], int]:
    """Asks and judges the arms on the rows to choose on; then the chosen one and the baseline on the others."""
    dev, baseline = experiment.places(dev=True), experiment.baseline
    to_ask = _places_to_ask(experiment)
    ask_arms([each for place, each in enumerate(arms) if place in to_ask], session)
    found = [read_arm(each) for each in arms]
    marks = [findings.marks_of(experiment, answers, dev) for answers in found]
    judged = judge_arms(experiment.metric, marks, baseline, experiment.rows(dev))
    chosen = choose(judged, baseline)
    extra = 0
    if chosen != baseline:
        rows = experiment.golden.take(experiment.places(dev=False)).write(scratch / "test.parquet")
        with beside_cache(experiment.arms[chosen], session.data, rows, session.console, writes=True) as again:
            ask_arms([again], session)
            found[chosen] |= read_arm(again)
            extra = again.progress.generated
    reports = [
        findings.judged_arm(experiment, *each, asks=place in to_ask)
        for place, each in enumerate(zip(arms, found, judged, strict=True))
    ]
    report = replace(
        findings.planned_report(job, experiment, reports),
        chosen=experiment.arms[chosen].name,
        tested=findings.tested(experiment, found, chosen),
        cut_off=findings.cut_off_of(job, experiment, found[chosen]),
        generated=extra + sum(each.progress.generated for each in arms),
    )
    return report, findings.marked_answers(experiment, found, chosen), chosen
