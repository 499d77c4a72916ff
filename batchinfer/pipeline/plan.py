"""The dry run: what a run would generate and cost. What would fail in a run fails here."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import Any

from batchinfer.core.home import JobData
from batchinfer.core.records import Info
from batchinfer.engines.devices import devices_of, place_here
from batchinfer.engines.protocol import Engine
from batchinfer.engines.ray import tell_room
from batchinfer.errors import UsageError, counted
from batchinfer.job.engine_spec import OpenAIBatchSpec, RaySpec, VllmSpec
from batchinfer.job.reader import Job, placing
from batchinfer.pipeline.attempt import tell_missing_secrets
from batchinfer.pipeline.ledger import Ledger
from batchinfer.pipeline.progress import Console
from batchinfer.pipeline.report import RunReport
from batchinfer.pipeline.run import run
from batchinfer.planning.estimate import PlanReport, estimate
from batchinfer.planning.loadable import check_models
from batchinfer.planning.prepare import Options, Prepared, prepare, quiet
from batchinfer.planning.rates import RUNS
from batchinfer.planning.shown_rows import tell_shown_rows
from batchinfer.publish.caution import tell_list
from batchinfer.publish.needs import read_publishing_needs

PROBED = 32  # prompts


def plan(job: Job, data: JobData, options: Options, info: Info = quiet) -> PlanReport:
    """Reads the list and compares it with the cache. May run beside a run. Raises BatchinferErrors."""
    tell_missing_secrets(job, os.environ, info)
    differs = tell_list(job, data, options.input, info)
    with prepare(job, data, options, info) as prepared:
        read_publishing_needs(job, prepared.query_list.source)
        if prepared.asks_model:
            check_models(prepared, info)
            if isinstance(spec := job.spec.engine, RaySpec):
                with placing(job):
                    tell_room(spec, info)
            tell_shown_rows(prepared, info)
        found = estimate(prepared, info)
        report = replace(found, list_differs=differs, made_of=prepared.made_of, **_money(prepared, found))
    if not data.root.is_dir():
        info(f"There is no data folder {data.root} yet, so nothing is cached.")
    elif not data.is_known:
        info(f"The data folder {data.root} has nothing of the job {job.name} yet, so nothing is cached.")
    return report


def probe(
    job: Job, data: JobData, options: Options, console: Console, engine: Engine | None = None
) -> RunReport | None:
    """Asks some prompts from all over the list, so that a plan knows how long the others will take; the cache keeps the answers.

    None, and nothing is written, where nothing is left to ask. engine: one that is already loaded, or None to start the job's
    own. Raises UsageError and BatchinferErrors as `run` does.
    """
    if job.spec.prompt is None:
        raise UsageError(f"The job {job.name} asks no model, so there is nothing to probe: leave --probe out.")
    if job.large is not None:
        raise UsageError(
            f"The job {job.name} asks two models, and a probe would tell the time of one: leave --probe out."
        )
    if isinstance(job.spec.engine, OpenAIBatchSpec):
        raise UsageError(
            f"The job {job.name} hands its prompts over as a batch, whose time no probe tells: leave --probe out."
        )
    with prepare(job, data, options) as prepared:
        if not prepared.plan.counts.to_generate:
            return None
    report = run(job, data, replace(options, limit=PROBED, spread=True, purpose="probe"), console, engine)
    console.info(f"The probe got {counted(report.generated, 'answer')}, which the cache keeps.")
    return report


def _money(prepared: Prepared, found: PlanReport) -> dict[str, Any]:
    """What the answers would cost: the time that they take, or else what answers of the newest runs that asked this model did."""
    cost, question = prepared.job.spec.cost, prepared.question
    if cost is None or question is None or prepared.cascade is not None:
        return {}
    engine = prepared.job.spec.engine
    if found.estimate is not None and found.estimate.chunks and isinstance(engine, VllmSpec):
        with contextlib.suppress(UsageError):  # too few devices, as the run will say
            devices = devices_of(place_here(engine.replicas, engine.tensor_parallel))
            money = cost.price.of_seconds(found.estimate.seconds * devices.count)
            return {"estimate_money": money, "currency": cost.currency}
    label, past = question.identity.label, [run for run in prepared.store.runs() if not run.status.is_aside]
    runs = [run for run in past if run.report.get("model") == label and run.report.get("generated")]
    ledger = Ledger.of(runs[:RUNS], {})
    if ledger.per_answer is None or ledger.currency != cost.currency:
        return {}
    return {"estimate_money": prepared.plan.counts.to_generate * ledger.per_answer, "currency": cost.currency}
