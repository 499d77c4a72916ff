"""What a run or a publishing says at its end: counts, rates, and why the gate refused."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from batchinfer.cache.schema import RunStatus
from batchinfer.core.cost import Cost
from batchinfer.core.reasons import advice
from batchinfer.core.records import Check
from batchinfer.errors import GateFailed
from batchinfer.inputs.upstream import Upstream
from batchinfer.job.reader import Job
from batchinfer.pipeline.cascade_report import CascadeReport, Turns, report_cascade
from batchinfer.pipeline.progress import Progress
from batchinfer.planning.prepare import Prepared
from batchinfer.planning.speed import TimeEstimate
from batchinfer.publish.changes import ServedChanges
from batchinfer.publish.matcher import Terms
from batchinfer.publish.release import Release
from batchinfer.versions.answers_cost import VersionCost

if TYPE_CHECKING:
    from batchinfer.publish.student_report import VersionStudent

SMALL_MASS = 0.1
JSON_NAMES = {"choice_mass": "mass"}  # fields that --json calls otherwise
OLDER_NAMES = {"cached": "hits", "failed": "failures", "remaining": "left"}  # --json has both: programs rely on these
# fields that --json leaves out where there is nothing to say
WHERE_IT_IS = (
    "run_id",
    "input",
    "seconds",
    "mass",
    "cascade",
    "cost",
    "version_cost",
    "checked",
    "unshown",
    "purpose",
    "generation_seconds",
    "waiting_seconds",
    "estimate",
)


def figure(report: Mapping[str, Any], name: str) -> Any:
    """A figure of a stored report, which an older program may have stored under its older name."""
    return report.get(name, report.get(OLDER_NAMES[name]))


@dataclass(frozen=True, slots=True)
class ChoiceMass:
    """How the probability that the model gave all choices together is distributed over the rows.

    p05: the 5th percentile.
    median: of all rows.
    small: how many rows are under 0.1.
    """

    p05: float
    median: float
    small: int

    @classmethod
    def of(cls, choice_masses: Sequence[float]) -> Self:
        """Of at least one row."""
        ordered = sorted(choice_masses)
        return cls(
            p05=round(ordered[int(0.05 * (len(ordered) - 1))], 4),
            median=round(statistics.median(ordered), 4),
            small=sum(mass < SMALL_MASS for mass in ordered),
        )

    def to_json(self) -> dict[str, float]:
        return {"p05": self.p05, "median": self.median, "below_0.1": self.small}


@dataclass(frozen=True, slots=True)
class RunWork:
    """What a run was and did, for its report. A publishing alone did nothing of it.

    run_id: the run's number.
    list_name: where the list came from.
    purpose: probe or tune, of a run that one of these began.
    seconds: of the whole run.
    last: what its last turn came to, or the only one: the plan's counts are those from before it.
    turns: all turns, each with its stage.
    spent: what they came to together.
    cost: what it used; None in a job without a model.
    checked: what was looked at to know that a server has the job's model, a sentence each.
    unshown: what could not be shown of it, a phrase each.
    estimate: how long it was to take, as it began; None where nobody knew.
    """

    run_id: int | None = None
    list_name: str | None = None
    purpose: str | None = None
    seconds: float | None = None
    last: Progress = field(default_factory=Progress)
    turns: Turns = ()
    spent: Progress = field(default_factory=Progress)
    cost: Cost | None = None
    checked: tuple[str, ...] = ()
    unshown: tuple[str, ...] = ()
    estimate: TimeEstimate | None = None


@dataclass(frozen=True, slots=True)
class RunReport:
    """A run, or a publishing, at its end.

    rows = bad + duplicates + unique
    unique = cached + generated + failed + remaining

    job: its name.
    run_id: the run's number; None for a publishing.
    status: how it ended.
    input: where the list came from; None for a publishing.
    upstream: the version that the list was made of, if the job is chained.
    rows: of the list.
    misses: those of them that clients asked for; None if the job does not include misses.
    bad: rows that cannot be asked.
    duplicates: rows whose prompt another row has.
    unique: different prompts.
    cached: prompts that the cache answered.
    generated: predictions that this run made.
    failed: prompts without a prediction.
    remaining: prompts that are still to do.
    carried: entries kept from the version before.
    version: published by this run, if one was.
    entries: of the candidate; None without one.
    candidate: the name of a refused one.
    unchanged: whether there was nothing new to publish.
    same_as: the current version, if it says all this already.
    pinned: the version that is served in place of the current one.
    changes: of what was served; None without a candidate.
    versions_removed: old versions and refused candidates that were removed afterwards.
    match: what the matcher holds.
    student: what came of the version's student; None for a job without the section, or without a candidate.
    gate: its checks.
    engine_load_seconds: until the engine was ready.
    rows_per_second: prompts answered per second of generation.
    prompt_tokens_per_second: the same in tokens of prompts.
    output_tokens_per_second: the same in tokens of answers.
    prefix_saving: share of prompt tokens that came from the engine's prefix cache.
    choice_mass: how the choices fared; None in a job without choices.
    seconds: of the whole run; None for a publishing.
    generation_seconds: those of them in which prompts were answered; None where none was asked.
    waiting_seconds: those in which it waited for devices; None where none was asked.
    estimate: how long it was to take, as it began; None where nobody knew.
    list_differs: that the list is another one than the served version's, as a sentence.
    model: the label of the one that was asked; None where there is none, or two share the list.
    cascade: how two models shared the list; None in a job with one.
    cost: what it used; None for a publishing, and in a job without a model.
    version_cost: what the answers of the version took to make; None without a candidate, and in a job without a model.
    checked: what was looked at to know that a server has the job's model, a sentence each; None where no server was asked.
    unshown: what could not be shown of it, a phrase each; None where no server was asked.
    purpose: probe or tune, of a run that one of these began; None for others.
    """

    job: str
    run_id: int | None
    status: RunStatus
    input: str | None
    upstream: Upstream | None
    rows: int
    misses: int | None
    bad: int
    duplicates: int
    unique: int
    cached: int
    generated: int
    failed: int
    remaining: int
    carried: int
    version: int | None
    entries: int | None
    candidate: str | None
    unchanged: bool
    same_as: int | None
    pinned: int | None
    changes: ServedChanges | None
    versions_removed: list[int | str]
    match: Terms | None
    student: VersionStudent | None
    gate: tuple[Check, ...]
    engine_load_seconds: float
    rows_per_second: float | None
    prompt_tokens_per_second: float | None
    output_tokens_per_second: float | None
    prefix_saving: float | None
    choice_mass: ChoiceMass | None
    seconds: float | None
    list_differs: str | None
    model: str | None = None
    cascade: CascadeReport | None = None
    cost: Cost | None = None
    version_cost: VersionCost | None = None
    checked: tuple[str, ...] | None = None
    unshown: tuple[str, ...] | None = None
    purpose: str | None = None
    generation_seconds: float | None = None
    waiting_seconds: float | None = None
    estimate: TimeEstimate | None = None

    @classmethod
    def of(
        cls, prepared: Prepared, status: RunStatus, work: RunWork, outcome: Release | None, list_differs: str | None
    ) -> Self:
        """outcome: None where nothing was published, or refused."""
        counts, contents = prepared.plan.counts, outcome.contents if outcome else None
        before, cascade = prepared.plan.answered, prepared.cascade
        last, spent = work.last, work.spent
        return cls(
            job=prepared.job.name,
            run_id=work.run_id,
            status=status,
            input=work.list_name,
            upstream=prepared.upstream,
            rows=counts.rows,
            misses=counts.misses,
            bad=counts.bad,
            duplicates=counts.duplicates,
            unique=counts.unique,
            cached=counts.cached - before,
            generated=before + last.generated,
            failed=counts.failed + last.failed,
            remaining=counts.to_generate - last.done,
            carried=contents.carried if contents else 0,
            version=outcome.version if outcome else None,
            entries=contents.entries if contents else None,
            candidate=outcome.candidate if outcome else None,
            unchanged=contents.same if contents else False,
            same_as=outcome.same_as if outcome else None,
            pinned=outcome.pinned if outcome else None,
            changes=contents.changes if contents else None,
            versions_removed=outcome.removed.to_json() if outcome else [],
            match=outcome.match if outcome else None,
            student=outcome.student if outcome else None,
            gate=outcome.checks if outcome else (),
            engine_load_seconds=round(spent.load_seconds, 3),
            rows_per_second=_rounded(spent.rate(spent.done)),
            prompt_tokens_per_second=_rounded(spent.rate(spent.prompt_tokens)),
            output_tokens_per_second=_rounded(spent.rate(spent.output_tokens)),
            prefix_saving=_rounded(spent.prefix_saving),
            choice_mass=ChoiceMass.of(spent.choice_masses) if spent.choice_masses else None,
            seconds=_rounded(work.seconds),
            list_differs=list_differs,
            model=prepared.question.identity.label if prepared.question and cascade is None else None,
            cascade=report_cascade(cascade, work.turns) if cascade else None,
            cost=work.cost,
            version_cost=outcome.cost if outcome else None,
            checked=work.checked or None,
            unshown=work.unshown or None,
            purpose=work.purpose,
            generation_seconds=_rounded(spent.seconds) if spent.started is not None else None,
            waiting_seconds=_rounded(spent.waiting_seconds) if spent.started is not None else None,
            estimate=work.estimate,
        )

    def to_json(self) -> dict[str, Any]:
        """What --json prints, and the cache keeps."""
        whole = {
            JSON_NAMES.get(field.name, field.name): getattr(self, field.name) for field in dataclasses.fields(self)
        }
        whole |= {old: whole[name] for name, old in OLDER_NAMES.items()}
        whole |= {
            "upstream": asdict(self.upstream) if self.upstream else None,
            "changes": self.changes.to_json() if self.changes else None,
            "match": self.match.to_json() if self.match else None,
            "student": self.student.to_json() if self.student else None,
            "gate": [check.to_json() for check in self.gate],
            "mass": self.choice_mass.to_json() if self.choice_mass else None,
            "cascade": self.cascade.to_json() if self.cascade else None,
            "cost": self.cost.to_json() if self.cost else None,
            "estimate": self.estimate.to_json() if self.estimate else None,
            "version_cost": self.version_cost.to_json() if self.version_cost else None,
        }
        return {name: value for name, value in whole.items() if value is not None or name not in WHERE_IT_IS}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


FAILING = ("coverage", "failures", "carried")  # checks that say no since rows have no answer


def raise_if_refused(job: Job, outcome: Release | None, report: RunReport) -> None:
    """Raises GateFailed, which carries the report, if the gate refused the candidate.

    It says which checks failed, and where the candidate lies; what to do, first about the cause, and last by force.
    """
    if outcome is None or not outcome.is_refused:
        return
    checks = "; ".join(f"{check.name}: {check.message}" for check in outcome.failed_checks)
    said = [f"The gate refused the new version: {checks}.", f"The candidate lies in {outcome.rejected}."]
    if outcome.contents.served:
        said.insert(1, "What was served before still is.")
    refusal = GateFailed(" ".join(said), fix=" ".join(_remedies(job, outcome, report.remaining)))
    refusal.report = report
    raise refusal


def _remedies(job: Job, outcome: Release, remaining: int) -> list[str]:
    """What a person can do about a refused candidate, a sentence each. remaining: prompts that are still to do."""
    refused, remedies = [check.name for check in outcome.failed_checks], list[str]()
    if any(check in FAILING for check in refused):
        if outcome.reasons:
            remedies.append(advice(job.name, outcome.reasons))
        elif job.spec.prompt is None:
            remedies.append(f"Import predictions for the rest of the list first: batchinfer import {job.name} FILE.")
        if job.spec.prompt is not None and remaining:
            remedies.append(f"Ask the model for the rest of the list first: batchinfer run {job.name}.")
    if "reviewed" in refused:
        remedies.append(
            f"Let people review it: batchinfer review {job.name} --out FILE.csv, then batchinfer import {job.name} FILE.csv."
        )
    if "audit" in refused:
        remedies.append(
            f"Look at its groups: batchinfer audit {job.name} --version {outcome.candidate} says what stands apart, and asks exchanged "
            f"terms and sentences; batchinfer publish {job.name} then takes what it found."
        )
    if outcome.contents.served:  # otherwise there is nothing to compare it with
        remedies.append(f"Compare it: batchinfer diff {job.name} current {outcome.candidate}.")
    empty = " --allow-empty" if not outcome.contents.entries else ""
    forced = f"batchinfer publish {job.name} --candidate {outcome.candidate} --force --why TEXT{empty}"
    return [*remedies, f"To publish it anyway: {forced}"]
