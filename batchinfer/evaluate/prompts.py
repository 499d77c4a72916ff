"""Which prompt is better: arms are asked through the cache, judged, and one is chosen and tested."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from batchinfer.cache.schema import RunStatus
from batchinfer.cache.store import Store
from batchinfer.core.home import JobData
from batchinfer.engines.protocol import Engine
from batchinfer.errors import Interrupted, Stopped
from batchinfer.evaluate import findings, halves
from batchinfer.evaluate.answers import read_arm
from batchinfer.evaluate.arms import Arm
from batchinfer.evaluate.ask import AskedArm, Session, ask_arms, beside_cache
from batchinfer.evaluate.compare import choose, judge_arms
from batchinfer.evaluate.experiment import EvalOptions, Experiment, design
from batchinfer.evaluate.report import EvalReport, Result, write_report
from batchinfer.job.reader import Job
from batchinfer.pipeline.history import EVAL
from batchinfer.pipeline.progress import Console
from batchinfer.pipeline.stop import StopNow, stopping
from batchinfer.planning.prepare import begun


def dry_run(job: Job, data: JobData, options: EvalOptions, console: Console) -> EvalReport:
    """What a comparison would ask, and what so many golden rows can show. Asks nothing, stores nothing."""
    with data.scratch() as scratch:
        experiment = design(job, data, options, scratch)
        rows = _write_rows(experiment, scratch)
        reports = []
        for place, arm in enumerate(experiment.arms):
            with beside_cache(arm, data, rows[place], console, writes=False) as asked:
                reports.append(findings.planned_arm(experiment, asked))
    return findings.planned_report(job, experiment, reports)


def compare_prompts(
    job: Job, data: JobData, options: EvalOptions, console: Console, engine: Engine | None = None
) -> tuple[EvalReport, Arm]:
    """Asks all arms through the cache, compares them, chooses one; returns what was found, and the chosen arm.

    engine: one that is already loaded and answers all arms, or None to start each model's. Raises Stopped and other
    BatchinferErrors; what was committed stays.
    """
    with contextlib.ExitStack() as held:
        held.enter_context(begun(job, data, f"batchinfer eval {job.name}", None, console.info))
        stop = held.enter_context(stopping(None, console.info))
        scratch = held.enter_context(data.scratch())
        experiment = design(job, data, options, scratch)
        data.prepare(job.path)
        store = Store(data.cache)
        store.prepare()
        halves.remember_halves(data, job.spec.eval.dev, halves.remembered(data, job.spec.eval.dev) | experiment.dev)
        with _recorded(store, job.name) as record:
            session = Session(data, record.run_id, console, stop, engine)
            rows = _write_rows(experiment, scratch)
            asked = [
                held.enter_context(beside_cache(arm, data, rows[place], console, writes=True))
                for place, arm in enumerate(experiment.arms)
            ]
            report, results, chosen = _compare(job, experiment, asked, session, scratch)
            report = replace(report, number=record.run_id)
            write_report(data.evals / str(record.run_id), report, results)
            record.generated = report.generated
    return report, experiment.arms[chosen]


@dataclass(slots=True)
class _Record:
    """A comparison in the cache's list of runs. generated: predictions that it made."""

    run_id: int
    generated: int = 0


@contextlib.contextmanager
def _recorded(store: Store, job: str) -> Iterator[_Record]:
    """Records the comparison among the runs, on every way out: answers are stored with the number of what made them."""
    record, status = _Record(store.start_run(None, None)), RunStatus.FAILED
    try:
        yield record
        status = RunStatus.DONE
    except Interrupted:
        status = RunStatus.INTERRUPTED
        raise
    except (Stopped, StopNow):
        status = RunStatus.STOPPED
        raise
    finally:
        store.finish_run(record.run_id, status, {"job": job, EVAL: record.run_id, "generated": record.generated})


def _write_rows(experiment: Experiment, scratch: Path) -> list[Path]:
    """The list of each arm: the rows to choose on, of the baseline all."""
    golden, dev = experiment.golden, scratch / "dev.parquet"
    whole = golden.write(scratch / "golden.parquet")
    golden.take(experiment.places(dev=True)).write(dev)
    return [whole if place == experiment.baseline else dev for place in range(len(experiment.arms))]


def _compare(
    job: Job, experiment: Experiment, asked: Sequence[AskedArm], session: Session, scratch: Path
) -> tuple[EvalReport, list[Result], int]:
    """Asks and judges the arms on the rows to choose on; then the chosen one and the baseline on the others."""
    ask_arms(asked, session)
    found = [read_arm(each) for each in asked]
    dev, baseline = experiment.places(dev=True), experiment.baseline
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
    reports = [findings.judged_arm(experiment, *each) for each in zip(asked, found, judged, strict=True)]
    report = replace(
        findings.planned_report(job, experiment, reports),
        chosen=experiment.arms[chosen].name,
        tested=findings.tested(experiment, found, chosen),
        cut_off=findings.cut_off_of(job, experiment, found[chosen]),
        generated=extra + sum(each.progress.generated for each in asked),
    )
    return report, findings.results_of(experiment, found, chosen), chosen
