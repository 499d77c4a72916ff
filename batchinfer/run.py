"""The whole pipeline, readable as its step names: plan, generate, store, gate, publish."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from batchinfer import build, golden, misses, model, question
from batchinfer.engines import Engine
from batchinfer.engines.devices import hold, place_here
from batchinfer.engines.pool import EnginePool
from batchinfer.errors import BatchinferError, GateFailed, InputError, Interrupted, SpecError, Stopped, UsageError
from batchinfer.generate import Generating, Tally
from batchinfer.golden import Golden
from batchinfer.home import JobHome, readable_faults
from batchinfer.jobfile import Job
from batchinfer.keys import changes
from batchinfer.plan import Plan, Selection, scratch_plan
from batchinfer.question import Question
from batchinfer.release import Forced, Release, pinned, release, release_candidate
from batchinfer.source import Source, find_files, job_files
from batchinfer.stopping import AtOnce, Stop, stopping
from batchinfer.store import Store
from batchinfer.tables import iso, now
from batchinfer.tokens import Tokenizer

SMALL_MASS = 0.1
WRITER_PATIENCE = 600.0  # seconds; a run of hours does not fail because somebody plans beside it
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
    refresh: bool = False  # make again what is cached: all, or the rows of refresh_where
    refresh_where: tuple[str, str] | None = None
    update_model: bool = False
    yes: bool = False

    @property
    def refresh_text(self) -> str:
        """The refresh as it was asked for."""
        return "=".join(self.refresh_where) if self.refresh_where else "all"


@dataclass(frozen=True, slots=True)
class Planned:
    """A job whose list was read and compared with its cache. question: None for a job that lives by imports.

    known: the job's golden rows, if it names any.
    """

    job: Job
    home: JobHome
    store: Store
    plan: Plan
    question: Question | None
    selection: Selection
    known: Golden | None


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
        planned(job, home, options, holds_lock=True) as p,
    ):
        confirm_regeneration(p, options, show)
        run_id = _begin(p, options)
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
        except (Stopped, AtOnce) as exc:
            request = exc.request if isinstance(exc, AtOnce) else exc
            report["status"] = "interrupted" if isinstance(request, Interrupted) else "stopped"
            request.report = report
            raise
        finally:
            report |= _figures(p.plan, tally, outcome) | {"seconds": round(time.monotonic() - started, 3)}
            with contextlib.suppress(BatchinferError) if report["status"] == "failed" else contextlib.nullcontext():
                p.store.finish_run(run_id, report["status"], report)
        if options.refresh and report["left"] == 0:
            home.forget_refresh()
        if outcome is not None and outcome.failed_checks:
            refused = GateFailed(gate_sentence(job.name, outcome))
            refused.report = report
            raise refused
        home.record_success(run_id, str(iso(now())))
        return report


def _begin(p: Planned, options: Options) -> int:
    """Records what is about to be done; returns the run's number."""
    if p.question is not None:
        model.remember(p.job, p.home, p.question.identity)
    if p.selection.refresh_since is not None:
        p.home.remember_refresh(options.refresh_text, p.selection.refresh_since)
    p.store.replace_bad_rows(p.plan.bad_rows())
    return p.store.start_run(p.question.fingerprint if p.question else b"", p.question.parts if p.question else None)


@contextlib.contextmanager
def planned(
    job: Job, home: JobHome, options: Options, *, holds_lock: bool = False, gated: bool = True
) -> Iterator[Planned]:
    """Reads the list, makes keys, compares them with the cache. Used by every command that needs the list.

    holds_lock: the caller holds the run lock; stored texts are then read again first if the parser changed.
    gated: what comes of it is to pass the gate, whose golden file is then read: before hours of work, not after.
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
    store = Store(home.cache, patience=WRITER_PATIENCE if holds_lock else None)
    store.prepare()
    source = Source(files, spec.input, columns)
    asked = asked and asked.of_kinds({name: source.kinds[name] for name in columns})
    known = golden.load(job, source.key) if gated else None
    with home.scratch() as scratch, scratch_plan(scratch, source, columns) as plan:
        include = spec.input.include_misses
        plan.load(
            asked.fingerprint if asked else b"",
            misses.rows(home, source) if include else None,
            include.at_least if include else 1,
        )
        if asked is not None and holds_lock:
            store.reread(asked.parser, asked.made(None), plan.queries)
        selection = _selection(options, spec.cache.max_age, home, [*spec.input.key, *columns])
        plan.compare(store, asked.parser_id if asked else "", selection)
        yield Planned(job, home, store, plan, asked, selection, known)


def _selection(options: Options, max_age: timedelta | None, home: JobHome, columns: list[str]) -> Selection:
    """What is to be made again. A refresh that was stopped goes on: what it made since it began counts as done."""
    if options.refresh_where and options.refresh_where[0] not in columns:
        raise UsageError(f"--refresh: the list has no column {options.refresh_where[0]} that the job uses.")
    since = (home.refresh_since(options.refresh_text) or now()) if options.refresh else None
    return Selection(options.retry_failed, since, options.refresh_where, max_age)


def confirm_regeneration(p: Planned, options: Options, show: Show) -> None:
    """Asks before most of the cache is made again because something in the key changed. Raises UsageError on no."""
    if p.question is None or options.yes or options.limit is not None:
        return
    most, counts = p.store.most_cached(), p.plan.counts
    if most is None or most.fingerprint == p.question.fingerprint or counts.to_generate <= MOSTLY * counts.unique:
        return
    changed = ", ".join(changes(most.parts, p.question.parts))
    text = (
        f"{changed} changed since the last run, so {counts.to_generate:,} of {counts.unique:,} prompts would be asked anew; "
        f"the {most.count:,} cached answers would not be used."
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


def _publish(p: Planned, tally: Tally, run_id: int, show: Show, forced: Forced | None = None) -> Release:
    facts = {"run_id": run_id, "model": asdict(p.question.identity) if p.question else None}
    failed = p.plan.counts.failed + tally.failures
    with readable_faults(p.home.versions):
        return release(
            p.job, p.home, p.plan, p.store, failed=failed, known=p.known, run=facts, say=show.say, forced=forced
        )


def publish_job(
    job: Job, home: JobHome, options: Options, show: Show, *, candidate: str | None = None, why: str | None = None
) -> Report:
    """Builds a version from what the cache has now, gates it, and makes it current. Raises GateFailed, with its report.

    candidate: publish that one's bytes instead. why: a reason to publish although the gate refuses.
    """
    home.prepare(job.path)
    forced = None if why is None else Forced(why)
    with home.run_lock(f"batchinfer publish {job.name}"):
        if candidate is not None:
            return _publish_candidate(job, home, options, show, candidate, forced)
        with planned(job, home, options, holds_lock=True) as p:
            runs = p.store.runs()
            outcome = _publish(p, Tally(), runs[0]["run_id"] if runs else 0, show, forced)
            report = {"job": job.name, "status": "done"} | _figures(p.plan, Tally(), outcome)
            if outcome.rejected is not None:
                refused = GateFailed(gate_sentence(job.name, outcome))
                refused.report = report | {"status": "rejected"}
                raise refused
            return report


def _publish_candidate(
    job: Job, home: JobHome, options: Options, show: Show, name: str, forced: Forced | None
) -> Report:
    """Publishes a rejected candidate as it is. The list is only looked at for the kinds of its key."""
    key = None
    with contextlib.suppress(InputError, SpecError):
        files = find_files(options.input) if options.input else job_files(job)
        key = Source(files, job.spec.input, []).key
    store = Store(home.cache)
    store.prepare()
    with readable_faults(home.versions):
        version, manifest = release_candidate(job, home, store, name, key=key, say=show.say, forced=forced)
    return {
        "job": job.name, "status": "done", "candidate": name, "version": version, "entries": manifest.rows,
        "carried": manifest.content["carried"], "unchanged": version is None, "pinned": pinned(home, show.say),
        "gate": manifest.content["gate"]["checks"],
    }  # fmt: skip


def export(job: Job, home: JobHome, options: Options, target: Path) -> int:
    """Writes what the cache has for the list, and imports, as Parquet; returns the number of rows. Raises UsageError."""
    with build.beside(target) as draft, planned(job, home, options, gated=False) as p:
        contents = build.collect(p.plan, p.store, job.spec)
        with build.copy_faults(target):
            build.write_predictions(p.plan, draft)
        return contents.entries


def gate_sentence(name: str, outcome: Release) -> str:
    """Which checks failed, where the candidate lies, and what to do with it. name: the job's."""
    failed = "; ".join(f"{check.name}: {check.says}" for check in outcome.failed_checks)
    candidate = outcome.rejected.name if outcome.rejected else ""
    force = f"to publish it all the same: batchinfer publish {name} --candidate {candidate} --force --why TEXT"
    if not outcome.contents.served:  # there is nothing to compare it with
        return f"The gate refused the new version: {failed}. The candidate lies in {outcome.rejected}; {force}"
    return (
        f"The gate refused the new version: {failed}. What was served before still is; the candidate lies in {outcome.rejected}. "
        f"Compare it with batchinfer diff {name} current {candidate}; {force}"
    )


def _figures(plan: Plan, tally: Tally, outcome: Release | None) -> Report:
    """The counts and rates of a report. rows = bad + duplicates + unique; unique = hits + generated + failures + left."""
    counts = plan.counts
    report: Report = {
        "rows": counts.rows, "misses": counts.misses, "bad": counts.bad, "duplicates": counts.duplicates,
        "unique": counts.unique, "hits": counts.hits,
        "generated": tally.generated, "failures": counts.failed + tally.failures,
        "left": counts.to_generate - tally.done,
        "carried": outcome.contents.carried if outcome else 0,
        "version": outcome.version if outcome else None,
        "entries": outcome.contents.entries if outcome else None,
        "candidate": outcome.rejected.name if outcome and outcome.rejected else None,
        "unchanged": bool(outcome and outcome.contents.same),
        "pinned": outcome.pinned if outcome else None,
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
