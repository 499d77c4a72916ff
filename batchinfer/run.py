"""The whole pipeline, readable as its step names: plan, generate, store, gate, publish."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from batchinfer import build, model, question
from batchinfer.engines import Engine
from batchinfer.engines.devices import hold, place_here
from batchinfer.engines.pool import EnginePool
from batchinfer.errors import BatchinferError, GateFailed, Interrupted, SpecError, Stopped, UsageError
from batchinfer.generate import Generating, Tally
from batchinfer.home import JobHome, readable_faults
from batchinfer.jobfile import Job
from batchinfer.plan import Plan, Selection, scratch_plan
from batchinfer.question import Question
from batchinfer.release import Release, release
from batchinfer.source import Source, find_files, job_files
from batchinfer.stopping import Stop, stopping
from batchinfer.store import Store
from batchinfer.tokens import Tokenizer

SMALL_MASS = 0.1
MOSTLY = 0.5  # regenerating a larger share than this of what was cached is asked about first


class Show(Protocol):
    """What a run tells the person who started it."""

    def say(self, text: str) -> None: ...
    def progress(self, tally: Tally, hits: int) -> None: ...
    def confirm(self, text: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Options:
    """The flags of `batchinfer run`."""

    input: Path | None = None
    limit: int | None = None
    max_hours: float | None = None
    publish: bool = True
    retry_failed: bool = False
    refresh: bool = False
    refresh_where: tuple[str, str] | None = None
    update_model: bool = False
    yes: bool = False


@dataclass(frozen=True, slots=True)
class Planned:
    """A job whose list was read and compared with its cache. question: None for a job that lives by imports."""

    job: Job
    home: JobHome
    store: Store
    plan: Plan
    question: Question | None
    selection: Selection


Report = dict[str, Any]


def run(job: Job, home: JobHome, options: Options, show: Show, engine: Engine | None = None) -> Report:
    """Runs a job to its end. engine: one that is already loaded, or None to start the job's own if one is needed.

    Returns the report. Raises Stopped, GateFailed and other BatchinferErrors; what was committed stays.
    """
    started = time.monotonic()
    home.prepare(job.path)
    with (
        home.run_lock(f"batchinfer run {job.name}"),
        stopping(options.max_hours, show.say) as stop,
        planned(job, home, options, reread=True) as p,
    ):
        confirm_regeneration(p, options, show)
        p.store.replace_bad_rows(p.plan.bad_rows())
        run_id = p.store.start_run(
            p.question.fingerprint if p.question else b"", p.question.parts if p.question else None
        )
        report: Report = {
            "job": job.name,
            "run_id": run_id,
            "status": "failed",
            "input": str(options.input or job.spec.input.path),
        }
        tally, outcome = Tally(), None
        try:
            _generate(p, options, show, stop, run_id, tally, engine)
            if stop.reason is not None:
                raise stop.reason
            if options.publish and options.limit is None:
                outcome = _publish(p, tally, run_id, show)
            report["status"] = "done" if outcome is None or not outcome.failed_checks else "rejected"
        except Stopped as exc:
            report["status"] = "interrupted" if isinstance(exc, Interrupted) else "stopped"
            raise
        finally:
            report |= _figures(p.plan, tally, outcome) | {"seconds": round(time.monotonic() - started, 3)}
            with contextlib.suppress(BatchinferError) if report["status"] == "failed" else contextlib.nullcontext():
                p.store.finish_run(run_id, report["status"], report)
        if outcome is not None and outcome.failed_checks:
            raise GateFailed(gate_sentence(outcome))
        return report


@contextlib.contextmanager
def planned(job: Job, home: JobHome, options: Options, *, reread: bool = False) -> Iterator[Planned]:
    """Reads the list, makes keys, compares them with the cache. Used by every command that needs the list.

    reread: first read stored texts again if the parser changed; only for those that hold the run lock.
    """
    home.prepare(job.path)
    spec = job.spec
    if spec.input.path is None and options.input is None:
        raise SpecError(
            str(job.path), ["input.job: chained jobs cannot be run yet: name a Parquet file with input.path."]
        )
    files = find_files(options.input) if options.input else job_files(job)
    asked = question.make(job, home, update_model=options.update_model) if spec.prompt else None
    columns = asked.template.columns if asked else list(spec.input.key)
    selection = Selection(options.retry_failed, options.refresh, options.refresh_where, spec.cache.max_age)
    store = Store(home.cache)
    store.prepare()
    source = Source(files, spec.input, columns)
    if options.refresh_where and options.refresh_where[0] not in [*spec.input.key, *columns]:
        raise UsageError(f"--refresh: the list has no column {options.refresh_where[0]} that the job uses.")
    with home.scratch() as scratch, scratch_plan(scratch, source, columns) as plan:
        plan.load(asked.fingerprint if asked else b"")
        if asked is not None and reread:
            store.reread(asked.parser, asked.made(None), plan.queries)
        plan.compare(store, asked.parser_id if asked else "", selection)
        yield Planned(job, home, store, plan, asked, selection)


def confirm_regeneration(p: Planned, options: Options, show: Show) -> None:
    """Asks before most of the cache is made again because something in the key changed. Raises UsageError on no."""
    last = p.store.last_parts()
    if p.question is None or last is None or last[0] == p.question.fingerprint or options.yes:
        return
    cached, counts = p.store.cached(last[0]), p.plan.counts
    if not cached or counts.to_generate <= MOSTLY * counts.unique or options.limit is not None:
        return
    from batchinfer.keys import changes

    changed = ", ".join(changes(last[1], p.question.parts))
    text = (
        f"{changed} changed since the last run, so {counts.to_generate:,} of {counts.unique:,} prompts would be asked anew; "
        f"the {cached:,} cached answers would not be used."
    )
    if not show.confirm(text + " Go on?"):
        raise UsageError(f"{text} Say --yes to go on, or undo the change.")


def _generate(
    p: Planned, options: Options, show: Show, stop: Stop, run_id: int, tally: Tally, engine: Engine | None
) -> None:
    """Asks the model for what is missing; loads nothing if nothing is. What it came to is in `tally`, however it ends."""
    if p.question is None or p.plan.counts.to_generate == 0:
        return
    generating = Generating(
        p.plan, p.question, p.store, stop, run_id, tally, replace=p.selection.replaces, limit=options.limit
    )
    source = model.weights(p.question.identity, p.home, show.say)
    began = time.monotonic()
    own = engine_for(p.job, p.home, p.question, source, show.say) if engine is None else contextlib.nullcontext(engine)
    with own as ready:
        show.say("Loading the model ...")
        tokenizer = Tokenizer(source, p.question.identity.revision, p.question.prompt.chat_template_kwargs)
        task = p.question.task(tokenizer)
        info = ready.wait_ready()
        tally.load_seconds = time.monotonic() - began
        show.say(f"{info.description}, ready after {tally.load_seconds:.0f} s.")
        generating.run(ready, task, tokenizer, info.max_model_len, lambda: show.progress(tally, p.plan.counts.hits))


@contextlib.contextmanager
def engine_for(job: Job, home: JobHome, asked: Question, source: str, say: Callable[[str], None]) -> Iterator[Engine]:
    """Starts the job's engine on this machine's devices, once they are free."""
    spec = job.spec.engine
    placements = place_here(spec.replicas, spec.tensor_parallel)
    home.logs.mkdir(parents=True, exist_ok=True)
    log = home.logs / "engine.log"
    log.write_bytes(b"")
    with hold(placements, f"batchinfer job {job.name}", say):
        pool = EnginePool(
            asked.engine_config(source), placements, log, stall_seconds=spec.stall.total_seconds(), say=say
        )
        with pool:
            yield pool


def _publish(p: Planned, tally: Tally, run_id: int, show: Show) -> Release:
    facts = {"run_id": run_id, "model": asdict(p.question.identity) if p.question else None}
    failed = p.plan.counts.failed + tally.failures
    with readable_faults(p.home.versions):
        return release(p.job, p.home, p.plan, p.store, failed=failed, run=facts, say=show.say)


def publish_job(job: Job, home: JobHome, options: Options, show: Show) -> Report:
    """Builds a version from what the cache has now, gates it, and makes it current. Raises GateFailed."""
    home.prepare(job.path)
    with home.run_lock(f"batchinfer publish {job.name}"), planned(job, home, options, reread=True) as p:
        runs = p.store.runs()
        outcome = _publish(p, Tally(), runs[0]["run_id"] if runs else 0, show)
        if outcome.failed_checks:
            raise GateFailed(gate_sentence(outcome))
        return {"job": job.name} | _figures(p.plan, Tally(), outcome)


def export(job: Job, home: JobHome, options: Options, target: Path) -> int:
    """Writes what the cache has for the list, and imports, as Parquet; returns the number of rows."""
    with planned(job, home, options) as p:
        contents = build.collect(p.plan, p.store, job.spec, None)
        build.write_predictions(p.plan, target)
        return contents.entries


def gate_sentence(outcome: Release) -> str:
    """Which checks failed, and where the candidate lies."""
    failed = "; ".join(f"{check.name}: {check.says}" for check in outcome.failed_checks)
    return (
        f"The gate refused the new version: {failed}. What was served before still is; the candidate lies in {outcome.rejected}. "
        f"See batchinfer failures, or change gate in the job file."
    )


def _figures(plan: Plan, tally: Tally, outcome: Release | None) -> Report:
    """The counts and rates of a report. rows = bad + duplicates + unique; unique = hits + generated + failures + left."""
    counts = plan.counts
    report: Report = {
        "rows": counts.rows, "bad": counts.bad, "duplicates": counts.duplicates, "unique": counts.unique, "hits": counts.hits,
        "generated": tally.generated, "failures": counts.failed + tally.failures,
        "left": counts.to_generate - tally.done,
        "carried": outcome.contents.carried if outcome else 0,
        "version": outcome.version if outcome else None,
        "entries": outcome.contents.entries if outcome else None,
        "unchanged": bool(outcome and outcome.contents.same),
        "gate": [asdict(check) for check in outcome.checks] if outcome else [],
        "engine_load_seconds": _rounded(tally.load_seconds),
        "rows_per_second": _rounded(tally.rate(tally.done)),
        "prompt_tokens_per_second": _rounded(tally.rate(tally.prompt_tokens)),
        "output_tokens_per_second": _rounded(tally.rate(tally.output_tokens)),
        "prefix_saving": _rounded(tally.prefix_saving),
    }  # fmt: skip
    if tally.masses:
        report["mass"] = _mass_report(tally.masses)
    return report


def _mass_report(masses: list[float]) -> dict[str, float]:
    """How the probability that the model gave all choices together is distributed over the rows."""
    ordered = sorted(masses)
    return {
        "p05": round(ordered[int(0.05 * (len(ordered) - 1))], 4),
        "median": round(statistics.median(ordered), 4),
        "below_0.1": sum(mass < SMALL_MASS for mass in ordered),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
