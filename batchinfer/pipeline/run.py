"""The whole pipeline, readable as its step names: plan, generate, store, gate, publish."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict

from batchinfer.cache.store import Store
from batchinfer.core.clock import iso, now
from batchinfer.core.files import os_errors
from batchinfer.core.home import JobData
from batchinfer.engines import models
from batchinfer.engines.protocol import Engine
from batchinfer.engines.start import engine_for
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import BatchinferError, GateFailed, InputError, Interrupted, SpecError, Stopped, UsageError
from batchinfer.inputs.files import list_columns
from batchinfer.job.reader import Job
from batchinfer.pipeline.generate import Generating
from batchinfer.pipeline.progress import Console, Progress
from batchinfer.pipeline.report import Report, figures, gate_sentence
from batchinfer.pipeline.stop import Stop, StopNow, stopping
from batchinfer.planning.fingerprint import changes
from batchinfer.planning.prepare import Options, Prepared, planned
from batchinfer.publish.candidate import release_candidate
from batchinfer.publish.release import Release, pinned_instead, release
from batchinfer.versions.manifest import Forced

MOSTLY = 0.5  # regenerating a larger share than this of what was cached is asked about first


def run(job: Job, data: JobData, options: Options, show: Console, engine: Engine | None = None) -> Report:
    """Runs a job to its end. engine: one that is already loaded, or None to start the job's own if one is needed.

    Returns the report. Raises Stopped, GateFailed and other BatchinferErrors; what was committed stays.
    """
    started = time.monotonic()
    data.prepare(job.path)
    with (
        data.run_lock(f"batchinfer run {job.name}"),
        stopping(options.max_hours, show.info) as stop,
        planned(job, data, options, holds_lock=True, say=show.info) as p,
    ):
        confirm_regeneration(p, options, show)
        run_id = _begin(p, options)
        report: Report = {
            "job": job.name,
            "run_id": run_id,
            "status": "failed",
            "input": str(options.input or p.upstream or job.spec.input.path),
            "upstream": asdict(p.upstream) if p.upstream else None,
        }
        tally, outcome = Progress(), None
        try:
            _generate(p, options, show, stop, run_id, tally, engine)
            if stop.reason is not None:
                raise stop.reason
            if options.publish and options.limit is None:
                outcome = _publish(p, tally, run_id, show)
            report["status"] = "done" if outcome is None or not outcome.failed_checks else "rejected"
        except (Stopped, StopNow) as exc:
            request = exc.request if isinstance(exc, StopNow) else exc
            report["status"] = "interrupted" if isinstance(request, Interrupted) else "stopped"
            request.report = report
            raise
        finally:
            report |= figures(p.plan, tally, outcome) | {"seconds": round(time.monotonic() - started, 3)}
            with contextlib.suppress(BatchinferError) if report["status"] == "failed" else contextlib.nullcontext():
                p.store.finish_run(run_id, report["status"], report)
        if options.refresh and report["left"] == 0:
            data.forget_refresh()
        if outcome is not None and outcome.failed_checks:
            refused = GateFailed(gate_sentence(job.name, outcome))
            refused.report = report
            raise refused
        data.record_success(run_id, str(iso(now())))
        return report


def _begin(p: Prepared, options: Options) -> int:
    """Records what is about to be done; returns the run's number."""
    if p.question is not None:
        models.remember(p.job, p.data, p.question.identity)
    if p.selection.refresh_since is not None:
        p.data.remember_refresh(options.refresh_text, p.selection.refresh_since)
    p.store.replace_bad_rows(p.plan.bad_rows())
    return p.store.start_run(p.question.fingerprint if p.question else b"", p.question.parts if p.question else None)


def confirm_regeneration(p: Prepared, options: Options, show: Console) -> None:
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
    p: Prepared, options: Options, show: Console, stop: Stop, run_id: int, tally: Progress, engine: Engine | None
) -> None:
    """Asks the model for what is missing; loads nothing if nothing is. What it came to is in `tally`, however it ends."""
    if p.question is None or p.plan.counts.to_generate == 0:
        return
    generating = Generating(
        p.plan, p.question, p.store, stop, run_id, tally, replace=p.selection.replaces, limit=options.limit
    )
    source = models.weights(p.question.identity, p.data, show.info)
    began = time.monotonic()
    own = engine_for(p.job, p.data, p.question, source, show.info) if engine is None else contextlib.nullcontext(engine)
    with own as ready:
        show.info("Loading the model ...")
        tokenizer = Tokenizer(source, p.question.identity.revision, p.question.prompt.chat_template_kwargs)
        task = p.question.task(tokenizer)
        info = ready.wait_ready()
        tally.load_seconds = time.monotonic() - began
        show.info(f"{info.description}, ready after {tally.load_seconds:.0f} s.")
        generating.run(ready, task, tokenizer, info.max_model_len, lambda: show.progress(tally, p.plan.counts.hits))


def _publish(p: Prepared, tally: Progress, run_id: int, show: Console, forced: Forced | None = None) -> Release:
    facts = {
        "run_id": run_id,
        "model": asdict(p.question.identity) if p.question else None,
        "upstream": asdict(p.upstream) if p.upstream else None,
    }
    failed = p.plan.counts.failed + tally.failures
    with os_errors(p.data.versions):
        return release(
            p.job, p.data, p.plan, p.store, failed=failed, known=p.known, run=facts, say=show.info, forced=forced
        )


def publish_job(
    job: Job, data: JobData, options: Options, show: Console, *, candidate: str | None = None, why: str | None = None
) -> Report:
    """Builds a version from what the cache has now, gates it, and makes it current. Raises GateFailed, with its report.

    candidate: publish that one's bytes instead. why: a reason to publish although the gate refuses.
    """
    data.prepare(job.path)
    forced = None if why is None else Forced(why)
    with data.run_lock(f"batchinfer publish {job.name}"):
        if candidate is not None:
            return _publish_candidate(job, data, options, show, candidate, forced)
        with planned(job, data, options, holds_lock=True, say=show.info) as p:
            runs = p.store.runs()
            outcome = _publish(p, Progress(), runs[0]["run_id"] if runs else 0, show, forced)
            upstream = asdict(p.upstream) if p.upstream else None
            report = {"job": job.name, "status": "done", "upstream": upstream} | figures(p.plan, Progress(), outcome)
            if outcome.rejected is not None:
                refused = GateFailed(gate_sentence(job.name, outcome))
                refused.report = report | {"status": "rejected"}
                raise refused
            return report


def _publish_candidate(
    job: Job, data: JobData, options: Options, show: Console, name: str, forced: Forced | None
) -> Report:
    """Publishes a rejected candidate as it is. The list is only looked at for the kinds of its key."""
    key = None
    with contextlib.suppress(InputError, SpecError):
        key = list_columns(job, data, options.input)[0].key
    store = Store(data.cache)
    store.prepare()
    with os_errors(data.versions):
        version, manifest = release_candidate(job, data, store, name, key=key, say=show.info, forced=forced)
    return {
        "job": job.name, "status": "done", "candidate": name, "version": version, "entries": manifest.rows,
        "carried": manifest.carried, "unchanged": version is None, "pinned": pinned_instead(data, show.info),
        "gate": [asdict(check) for check in manifest.gate.checks],
    }  # fmt: skip
