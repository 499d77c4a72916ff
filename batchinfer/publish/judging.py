"""What the gate says of a candidate."""

from __future__ import annotations

from batchinfer.cache.workspace import Workspace
from batchinfer.core.home import JobData
from batchinfer.core.records import Check
from batchinfer.publish import audit_file, evidence, gate, golden, sliced
from batchinfer.publish.build import RunFacts
from batchinfer.publish.candidate import Candidate
from batchinfer.publish.emptied import count_emptied
from batchinfer.publish.fairness import Fairness
from batchinfer.publish.gate import Figures
from batchinfer.publish.golden import Score
from batchinfer.publish.inference import Precision
from batchinfer.publish.needs import PublishingNeeds
from batchinfer.publish.precision import SampledPrecision
from batchinfer.publish.recall import measure_recall


def judge_candidate(
    data: JobData, candidate: Candidate, workspace: Workspace, run: RunFacts, failed: int, needs: PublishingNeeds
) -> list[Check]:
    """What the gate says of a candidate, with examples of what it refuses."""
    score = Score() if needs.golden is None else golden.score(candidate, needs.golden, evidence.MOST)
    precision = _precision(data, candidate, workspace)
    recall = None
    if workspace.spec.gate.recall is not None:
        recall = measure_recall(workspace, needs.golden, candidate.entries_sql)
    contents, query_list = candidate.contents, workspace.query_list
    fairness = _fairness(data, candidate, workspace, run, needs)
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


def _fairness(
    data: JobData, candidate: Candidate, workspace: Workspace, run: RunFacts, needs: PublishingNeeds
) -> Fairness:
    """What is known of groups, if the gate asks for it: slices of the candidate, and the audit that asked as it was asked."""
    spec = workspace.spec
    if not spec.gate.audit:
        return Fairness()
    slices = sliced.audit_list(workspace, candidate.entries_sql, needs.golden).slices if spec.audit.slices else ()
    if needs.lists is None or run.fingerprint is None or run.parser is None:
        return Fairness(slices, asks=spec.audit.asks)
    settings = audit_file.settings_of(spec, needs.lists, run.fingerprint, run.parser)
    return Fairness(slices, spec.audit.asks, audit_file.read_newest_audit(data, settings))


def _precision(data: JobData, candidate: Candidate, workspace: Workspace) -> Precision | None:
    """Of a candidate, if its gate asks for it."""
    if workspace.spec.gate.precision is None:
        return None
    return SampledPrecision(workspace, data, candidate.withheld_sql).measure(candidate.entries_sql)
