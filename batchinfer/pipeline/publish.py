"""Publishing: at the end of a run, from the cache alone, or a refused candidate as it is."""

from __future__ import annotations

import contextlib

from batchinfer.cache.schema import RunStatus
from batchinfer.cache.store import Store
from batchinfer.core.files import os_errors
from batchinfer.core.home import JobData
from batchinfer.core.person import Person
from batchinfer.errors import InputError, SpecError, UsageError
from batchinfer.inputs.files import list_columns
from batchinfer.job.reader import Job
from batchinfer.pipeline.attempt import Attempt
from batchinfer.pipeline.report import RunReport, RunWork, raise_if_refused
from batchinfer.planning.prepare import Options, Prepared, holding_run_lock, prepare_to_write
from batchinfer.publish.build import RunFacts
from batchinfer.publish.caution import Consent, confirm_list
from batchinfer.publish.needs import PublishingNeeds, read_publishing_needs
from batchinfer.publish.refused import CandidateReport, release_candidate
from batchinfer.publish.release import Release, release
from batchinfer.versions.manifest import Forced


def publish_prepared(
    prepared: Prepared, run_id: int, failed: int, needs: PublishingNeeds, person: Person, consent: Consent
) -> Release:
    """Publishes what the cache has for a list. failed: prompts without an answer."""
    question = prepared.question
    facts = RunFacts(
        run_id=run_id,
        model=question.identity if question else None,
        upstream=prepared.upstream,
        input=prepared.place,
        made_of=prepared.made_of,
        fingerprint=prepared.workspace.fingerprint,
        parser=question.parser_id if question else None,
        cascade=prepared.cascade.published() if prepared.cascade else None,
    )
    with os_errors(prepared.data.versions):
        return release(prepared.data, prepared.workspace, facts, person, failed=failed, needs=needs, consent=consent)


def publish(
    job: Job, data: JobData, options: Options, person: Person, why: str | None = None, *, allow_empty: bool = False
) -> RunReport:
    """Builds a version from what the cache has now, gates it, and makes it current. Raises GateFailed, with its report.

    why: a reason to publish although the gate refuses. allow_empty: also a version without entries.
    """
    consent = Consent(_forced(why), options.yes, allow_empty)
    attempt = Attempt(job, data, person.info, runs=False)
    with (
        attempt.told(),
        holding_run_lock(job, data, f"batchinfer publish {job.name}", options.input, person.info),
        attempt.going_on(),
    ):
        differs = confirm_list(job, data, options.input, person, yes=options.yes)
        with prepare_to_write(job, data, options, person.info) as prepared:
            return _publish_and_report(prepared, person, consent, differs)


def _publish_and_report(prepared: Prepared, person: Person, consent: Consent, list_differs: str | None) -> RunReport:
    """Publishes, and reports it as a run that asked nothing. Raises GateFailed."""
    job, store, query_list = prepared.job, prepared.store, prepared.query_list
    needs = read_publishing_needs(job, query_list.source)
    store.replace_bad_rows(query_list.bad_rows(), prepared.workspace.texts)  # which failures lists then
    outcome = publish_prepared(prepared, store.last_run_id(), prepared.plan.counts.failed, needs, person, consent)
    status = RunStatus.REJECTED if outcome.is_refused else RunStatus.DONE
    report = RunReport.of(prepared, status, RunWork(), outcome, list_differs)
    raise_if_refused(job, outcome, report)
    return report


def publish_candidate(
    job: Job,
    data: JobData,
    options: Options,
    person: Person,
    name: str,
    why: str | None = None,
    *,
    allow_empty: bool = False,
) -> CandidateReport:
    """Publishes a refused candidate byte for byte. The list is only looked at for the kinds of its key.

    why: a reason to publish although its gate failed. allow_empty: also one without entries.
    """
    consent = Consent(_forced(why), options.yes, allow_empty)
    data.require()
    data.bind(job.path)
    attempt = Attempt(job, data, person.info, runs=False)
    with attempt.told(), data.run_lock(f"batchinfer publish {job.name}"), attempt.going_on():
        key = None
        with contextlib.suppress(InputError, SpecError):
            key = list_columns(job, data, options.input)[0].key
        store = Store(data.cache)
        store.create_or_migrate()
        with os_errors(data.versions):
            return release_candidate(job, data, store, name, key=key, person=person, consent=consent)


def _forced(why: str | None) -> Forced | None:
    """Raises UsageError for an empty reason: it is kept with the version."""
    if why is None:
        return None
    if not why.strip():
        raise UsageError("Publishing by force needs a reason, which is kept with the version.")
    return Forced(why)
