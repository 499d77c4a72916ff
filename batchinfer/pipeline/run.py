"""The whole pipeline, readable as its step names: prepare, confirm, generate, publish, report."""

from __future__ import annotations

import time

from batchinfer.core.clock import iso, now
from batchinfer.core.home import JobData
from batchinfer.core.person import ask
from batchinfer.core.records import Info
from batchinfer.engines.protocol import Engine
from batchinfer.errors import counted
from batchinfer.job.reader import Job
from batchinfer.pipeline.asking import Asking
from batchinfer.pipeline.attempt import Attempt
from batchinfer.pipeline.budget import check_priced
from batchinfer.pipeline.on_errors import mostly_bad
from batchinfer.pipeline.progress import Console
from batchinfer.pipeline.publish import publish_prepared
from batchinfer.pipeline.record import RunRecord
from batchinfer.pipeline.report import RunReport, raise_if_refused
from batchinfer.pipeline.stop import Stop, stopping
from batchinfer.planning.fingerprint import changes
from batchinfer.planning.loadable import check_models
from batchinfer.planning.prepare import Options, Prepared, holding_run_lock, prepare_to_write
from batchinfer.planning.shown_rows import tell_shown_rows
from batchinfer.publish.caution import Consent, confirm_list, tell_list
from batchinfer.publish.needs import PublishingNeeds, read_publishing_needs
from batchinfer.publish.release import Release

MOST_REGENERATED = 0.5  # regenerating a larger share than this of the list's prompts is asked about first


def run(job: Job, data: JobData, options: Options, console: Console, engine: Engine | None = None) -> RunReport:
    """Runs a job to its end. engine: one that is already loaded, or None to start the job's own if one is needed.

    Raises Stopped, GateFailed and other BatchinferErrors; what was committed stays.
    """
    check_priced(job, options.budget)
    began = time.monotonic()
    is_limited = options.limit is not None  # somebody tries the job
    attempt = Attempt(job, data, console.info, publishes=options.publishes, silent=is_limited)
    with (
        attempt.told(),
        holding_run_lock(job, data, f"batchinfer run {job.name}", options.input, console.info),
        stopping(options.max_hours, console.info, options.stop_seconds) as stop,
        attempt.going_on(),
    ):
        list_differs = _confirm_list(job, data, options, console)
        with prepare_to_write(job, data, options, console.info) as prepared:
            needs = _look_ahead(prepared, engine, console.info)
            confirm_regeneration(prepared, options, console)
            with RunRecord(prepared, options, began, list_differs) as record:
                attempt.record = record
                generate(prepared, options, console, stop, record, engine)
                if options.publishes:
                    record.published(_publish_run(prepared, options, console, record, needs))
            raise_if_refused(job, record.outcome, record.report)
            if not is_limited:
                data.record_success(record.run_id, str(iso(now())))
            return record.report


def _confirm_list(job: Job, data: JobData, options: Options, console: Console) -> str | None:
    """Says if the list is another one than the served version's, and asks if the run is to publish. Raises NotConfirmed."""
    if options.publishes:
        return confirm_list(job, data, options.input, console, yes=options.yes)
    return tell_list(job, data, options.input, console.info)


def _look_ahead(prepared: Prepared, engine: Engine | None, info: Info) -> PublishingNeeds:
    """What would fail after hours of work fails now: files that the gate needs, and models that cannot be loaded."""
    needs = read_publishing_needs(prepared.job, prepared.query_list.source)
    if engine is None and prepared.asks_model:
        check_models(prepared, info)
        tell_shown_rows(prepared, info)
    return needs


def confirm_regeneration(prepared: Prepared, options: Options, console: Console) -> None:
    """Asks before most of the cache is made again because something in the key changed. Raises NotConfirmed on no."""
    question, counts = prepared.question, prepared.plan.counts
    if question is None or options.limit is not None:
        return
    most = prepared.store.most_cached()
    questions = [question, *([prepared.cascade.large] if prepared.cascade else [])]
    if most is None or most.fingerprint in [each.fingerprint for each in questions]:
        return
    if counts.to_generate <= MOST_REGENERATED * counts.unique:
        return
    changed = ", ".join(changes(most.parts, question.parts))
    text = (
        f"{changed} changed since the last run, so {counts.to_generate:,} of {counted(counts.unique, 'prompt')} would be "
        f"regenerated; the {most.count:,} cached answers would not be used."
    )
    ask(console, text, "pass --yes to continue, or undo the change.", yes=options.yes)


def generate(
    prepared: Prepared, options: Options, console: Console, stop: Stop, record: RunRecord, engine: Engine | None
) -> None:
    """Asks the model for what is missing; loads nothing if nothing is. Raises Stopped if it was asked to end."""
    asking = Asking(prepared, options, console, stop, record, engine)
    if prepared.has_todo:
        _check_list(prepared)
    if prepared.cascade is not None:
        asking.ask_both(prepared.cascade)
    elif prepared.has_todo:
        asking.ask()
    # With two models it is not settled whose answer each row takes once a stop was asked, whatever was answered.
    stop.check_end(is_done=prepared.cascade is None and prepared.plan.counts.to_generate == record.progress.done)


def _check_list(prepared: Prepared) -> None:
    """Raises Stopped if most rows of the list are bad: the model would be asked about the few others without use."""
    limits, query_list = prepared.job.spec.on_errors, prepared.query_list
    if limits == "continue":
        return
    stop = mostly_bad(prepared.job.name, limits, prepared.plan.counts, query_list.bad_reasons())
    if stop is not None:
        raise stop


def _publish_run(
    prepared: Prepared, options: Options, console: Console, record: RunRecord, needs: PublishingNeeds
) -> Release:
    failed = prepared.plan.counts.failed + record.progress.failed
    return publish_prepared(prepared, record.run_id, failed, needs, console, Consent(yes=options.yes))
