"""A candidate before the gate: what it is held against, out of files that are read before hours of work, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from batchinfer.cache.workspace import Workspace
from batchinfer.core.home import JobData
from batchinfer.core.records import Check
from batchinfer.inputs.parquet import ListSource
from batchinfer.job.reader import Job
from batchinfer.publish import audited, evidence, gate, golden, matcher, sliced
from batchinfer.publish.build import RunFacts
from batchinfer.publish.candidate import Candidate
from batchinfer.publish.columns import check_columns
from batchinfer.publish.embeddings import embeddings_of
from batchinfer.publish.emptied import count_emptied
from batchinfer.publish.fairness import Fairness
from batchinfer.publish.gate import Figures
from batchinfer.publish.golden import Golden, Score
from batchinfer.publish.inference import Precision
from batchinfer.publish.precision import SampledPrecision
from batchinfer.publish.recall import measure_recall

if TYPE_CHECKING:  # what learns is loaded for jobs with a student alone
    from batchinfer.student.embeddings import Embeddings


@dataclass(frozen=True, slots=True)
class Known:
    """What the gate holds a candidate against, out of files that the job names.

    golden: the job's golden rows, if it has some.
    embeddings: reads those that a student is learned on, as late as that, since they may be large; None gives none.
    lists: a digest of the lists of terms and sentences that an audit asks; None where the gate does not look at them.
    """

    golden: Golden | None = None
    lists: str | None = None
    embeddings: Callable[[], Embeddings | None] = lambda: None


def read_known(job: Job, source: ListSource) -> Known:
    """What publishing will need, looked at before hours of work: golden rows, columns to audit and of aliases, a matcher's libraries.

    source: the job's list. Raises InputError, SpecError or MissingExtra.
    """
    if job.spec.match is not None:
        matcher.need_libraries()
    embeddings_of(job)
    check_columns(job, source)
    lists = audited.digest_lists(job) if job.spec.gate.audit else None
    return Known(golden.read_golden(job, source.key), lists, partial(embeddings_of, job))


def judge_candidate(
    data: JobData, candidate: Candidate, workspace: Workspace, run: RunFacts, failed: int, known: Known
) -> list[Check]:
    """What the gate says of a candidate, with examples of what it refuses."""
    score = Score() if known.golden is None else golden.score(candidate, known.golden, evidence.MOST)
    precision = _precision(data, candidate, workspace)
    recall = None
    if workspace.spec.gate.recall is not None:
        recall = measure_recall(workspace, known.golden, candidate.entries_sql)
    contents, query_list = candidate.contents, workspace.query_list
    fairness = _fairness(data, candidate, workspace, run, known)
    figures = Figures(
        keys=query_list.lookups, covered=contents.covered, attempted=query_list.unique + query_list.bad,
        failed=failed + query_list.bad, entries=contents.entries, carried=contents.carried, served=contents.served,
        missing=contents.missing, changed=contents.changed, to_review=contents.to_review, unseen=contents.unseen,
        golden=score.rows, right=score.right,
        emptied=count_emptied(workspace.db, candidate.entries_sql, workspace.spec),
    )  # fmt: skip
    return evidence.attach(
        gate.judge(workspace.spec.gate, figures, fairness, precision, recall, candidate.calibration),
        candidate,
        score.wrong,
    )


def _fairness(data: JobData, candidate: Candidate, workspace: Workspace, run: RunFacts, known: Known) -> Fairness:
    """What is known of groups, if the gate asks for it: slices of the candidate, and the audit that asked as it was asked."""
    spec = workspace.spec
    if not spec.gate.audit:
        return Fairness()
    slices = sliced.audit_list(workspace, candidate.entries_sql, known.golden).slices if spec.audit.slices else ()
    if known.lists is None or run.fingerprint is None or run.parser is None:
        return Fairness(slices, asks=spec.audit.asks)
    settings = audited.settings_of(spec, known.lists, run.fingerprint, run.parser)
    return Fairness(slices, spec.audit.asks, audited.read_audit(data, settings))


def _precision(data: JobData, candidate: Candidate, workspace: Workspace) -> Precision | None:
    """Of a candidate, if its gate asks for it."""
    if workspace.spec.gate.precision is None:
        return None
    return SampledPrecision(workspace, data, candidate.withheld_sql).measure(candidate.entries_sql)
