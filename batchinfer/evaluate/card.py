"""What an audit found, as a page for people: a model card of a version. Pure: records in, Markdown out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from batchinfer.cache.reviewers import Reviewer
from batchinfer.core.clock import iso
from batchinfer.core.markdown import in_table
from batchinfer.core.records import SMALL_GROUPS
from batchinfer.errors import counted
from batchinfer.inputs.place import list_place
from batchinfer.job.reader import Job
from batchinfer.publish.slices import AuditedSlice, FairVerdict, SliceFigures
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.precision import ServedFigures

WHOLE = "(the whole list)"


class AskedGroup(Protocol):
    """A group that was asked about: exchanged terms, or sentences."""

    @property
    def name(self) -> str: ...

    @property
    def rows(self) -> int: ...

    @property
    def verdict(self) -> FairVerdict: ...

    @property
    def message(self) -> str: ...


@dataclass(frozen=True, slots=True)
class SaidByPeople:
    """Entries that people said something of.

    accepted: those of the model's that people accepted.
    corrected: those that reviewers gave.
    imported: those that were imported.
    """

    accepted: int = 0
    corrected: int = 0
    imported: int = 0


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card is made of, beside the groups.

    job: as its file is now.
    name: of the version or candidate, such as version 3.
    manifest: what it says of itself.
    verdict: on all groups together.
    whole: the figures of the whole list; None where no list was counted.
    people: what people said of the version's entries.
    reviewers: who gave verdicts and answers to the job.
    known: precision and recall of the version, as far as somebody found them out.
    untested: columns of the list that no slice is made of.
    """

    job: Job
    name: str
    manifest: Manifest
    verdict: FairVerdict
    whole: SliceFigures | None = None
    people: SaidByPeople = SaidByPeople()
    reviewers: Sequence[Reviewer] = ()
    known: ServedFigures = ServedFigures()  # noqa: RUF009 - frozen
    untested: Sequence[str] = ()


def card_of(facts: CardFacts, slices: Sequence[AuditedSlice], asked: Sequence[AskedGroup]) -> str:
    """The card's Markdown. asked: exchanged terms, and groups of sentences."""
    parts = [
        _intended(facts), _figures(facts), _groups(facts, slices), _answers(facts, slices), _asked_groups(asked),
        _untested(facts, slices, asked), _failures(facts, slices, asked), _reviewed(facts), _limits(facts.job),
    ]  # fmt: skip
    return "\n".join(line for part in parts for line in (*part, ""))


def _intended(facts: CardFacts) -> Iterator[str]:
    manifest, spec = facts.manifest, facts.job.spec
    golden = spec.gate.golden or spec.eval.golden
    yield f"# {facts.job.name}, {facts.name}"
    yield ""
    yield f"Audit: **{facts.verdict}**."
    yield ""
    yield f"- Intended use: {spec.description or 'not described: write it as description in the job file'}"
    unsure = f"; where it is not sure, {spec.model.cascade.large.id}" if spec.model and spec.model.cascade else ""
    yield f"- Model: {spec.model.id + unsure if spec.model else 'none; all answers were imported'}"
    yield f"- Data: {list_place(facts.job, None)}, {manifest.rows:,} entries"
    yield f"- Made at: {iso(manifest.created_at)}"
    yield f"- Golden rows: {golden.path if golden else 'none, so that accuracy is not known'}"


def _figures(facts: CardFacts) -> Iterator[str]:
    yield "## Figures"
    yield ""
    if facts.whole is not None:
        found = facts.whole.to_json()
        yield f"- Coverage of the list: {_ranged(found['coverage'], found['coverage_interval'])}"
        yield f"- Failures: {_ranged(found['failures'], found['failures_interval'])}"
        if found["golden"]:
            yield f"- Accuracy on {found['golden']:,} golden rows: {_ranged(found['accuracy'], (found['low'], found['high']))}"
    precision, recall = facts.known.precision, facts.known.recall
    if precision is None:
        yield f"- Precision: not known; batchinfer precision {facts.job.name} --sample 200 --out FILE draws rows to judge"
    else:
        verdicts, ends = counted(precision.verdicts, "verdict"), (precision.low, precision.high)
        yield f"- Precision by {verdicts} on samples: {_ranged(precision.estimate, ends)}"
    if recall is not None:
        rows = counted(recall.rows, "golden row")
        yield f"- Recall of what {rows} must contain: {_ranged(recall.estimate, (recall.low, recall.high))}"
    yield ""
    yield "Intervals are of 95 %."


def _reviewed(facts: CardFacts) -> Iterator[str]:
    yield "## Who reviewed what"
    yield ""
    people, manifest = facts.people, facts.manifest
    yield (
        f"Of {counted(manifest.rows, 'entry', 'entries')} people accepted {people.accepted:,}, corrected {people.corrected:,} "
        f"and imported {people.imported:,}; nobody said anything of the others. The gate wants as reviewed: "
        f"{facts.job.spec.gate.reviewed}."
    )
    yield ""
    if not facts.reviewers:
        yield "Nobody gave a verdict or an answer to this job."
        return
    yield "| who | accepted | rejected | corrected | answers imported | first | last |"
    yield "| --- | ---: | ---: | ---: | ---: | --- | --- |"
    for each in facts.reviewers:
        counts = " | ".join(f"{count:,}" for count in (each.accepted, each.rejected, each.corrected, each.answered))
        yield f"| {in_table(each.author or '(without a name)')} | {counts} | {_day(each.first)} | {_day(each.last)} |"


def _day(moment: str | None) -> str:
    return "-" if moment is None else moment[:10]


def _groups(facts: CardFacts, slices: Sequence[AuditedSlice]) -> Iterator[str]:
    yield "## Groups of rows"
    yield ""
    if not slices:
        yield "None were looked at."
        return
    yield "| group | rows | coverage | failures | accuracy | tokens per row | verdict |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | --- |"
    for each in slices:
        yield f"| {in_table(each.name)} | {' | '.join(cells(each.figures, each.tokens_ratio))} | {each.verdict} |"
    if facts.whole is not None:
        yield f"| {WHOLE} | {' | '.join(cells(facts.whole, 1.0 if facts.whole.tokens else None))} | |"
    yield ""
    yield "Tokens are the median, as a multiple of the whole list's."


def _answers(facts: CardFacts, slices: Sequence[AuditedSlice]) -> Iterator[str]:
    """How answers are spread, of each group beside the whole list."""
    yield "## Answers of groups"
    yield ""
    yield "| group | cut off | scores: 10, 50, 90 % | predictions |"
    yield "| --- | ---: | --- | --- |"
    whole = [] if facts.whole is None else [(WHOLE, facts.whole)]
    for name, figures in [*((in_table(each.name), each.figures) for each in slices), *whole]:
        score = ", ".join(f"{figures.score[place]:.2f}" for place in (0, 2, 4)) if figures.score else "-"
        shares = (
            f"{in_table(value)} {_ranged(share, (low, high))}"
            for value, (share, low, high) in figures.value_shares.items()
        )
        yield f"| {name} | {figures.reasons.get('cut_off', 0):,} | {score} | {', '.join(shares) or '-'} |"


def _asked_groups(asked: Sequence[AskedGroup]) -> Iterator[str]:
    yield "## Terms for groups of people"
    yield ""
    if not asked:
        yield "None were exchanged, and no sentences asked."
        return
    yield "| group | rows | found | verdict |"
    yield "| --- | ---: | --- | --- |"
    for each in asked:
        yield f"| {in_table(each.name)} | {each.rows:,} | {in_table(each.message)} | {each.verdict} |"


def cells(figures: SliceFigures, tokens_ratio: float | None) -> tuple[str, ...]:
    """Rows, coverage, failures, accuracy and tokens of a group, as people read them."""
    found = figures.to_json()
    accuracy = _ranged(found["accuracy"], (found["low"], found["high"])) if found["golden"] else "-"
    return (
        f"{figures.rows:,}", _ranged(found["coverage"], found["coverage_interval"]),
        _ranged(found["failures"], found["failures_interval"]), accuracy,
        "-" if tokens_ratio is None else f"{tokens_ratio:.2f}",
    )  # fmt: skip


def _ranged(share: float, interval: Sequence[float]) -> str:
    low, high = interval
    return f"{share:.1%} ({low:.1%} to {high:.1%})"


def _untested(facts: CardFacts, slices: Sequence[AuditedSlice], asked: Sequence[AskedGroup]) -> Iterator[str]:
    spec = facts.job.spec.audit
    yield "## Not tested"
    yield ""
    for each in slices:
        if each.verdict is FairVerdict.UNKNOWN:
            yield f"- {in_table(each.name)}: {'; '.join(each.why)}"
    for group in asked:
        if group.verdict is FairVerdict.UNKNOWN:
            yield f"- {in_table(group.name)}: {group.rows:,} rows, {in_table(group.message)}"
    if facts.untested:
        yield f"- Groups by other columns of the list: {in_table(', '.join(facts.untested))}"
    if not spec.swaps:
        yield "- Whether answers depend on whom a text is about: no terms for groups of people were exchanged"
    else:
        yield f"- Groups of people, and words for them, that are not in {in_table(', '.join(spec.swaps))}"
    if not spec.templates:
        yield "- How scores tell right from wrong for groups of people: no sentences were asked"


def _failures(facts: CardFacts, slices: Sequence[AuditedSlice], asked: Sequence[AskedGroup]) -> Iterator[str]:
    yield "## Known failures"
    yield ""
    failed = [each for each in slices if each.verdict is FairVerdict.FAIL]
    for each in failed:
        yield f"- {in_table(each.name)}: {'; '.join(each.why)}"
    if facts.whole is not None and facts.whole.reasons:
        yield f"- The list failed for: {_reasons(facts.whole)}"
    for each in slices:
        if each.figures.reasons:
            yield f"- {in_table(each.name)} failed for: {_reasons(each.figures)}"
    worse = [each for each in asked if each.verdict is FairVerdict.FAIL]
    for group in worse:
        yield f"- {in_table(group.name)}: {in_table(group.message)}"
    for check in facts.manifest.gate.failed:
        yield f"- The gate's check {check.name}: {in_table(check.message.partition(SMALL_GROUPS)[0])}"
    if facts.manifest.forced is not None:
        forced = facts.manifest.forced
        yield f"- Published although the gate refused it, by {in_table(forced.by)}: {in_table(forced.why)}"
    if not failed and not worse:
        yield "- No group fails its limits."


def _reasons(figures: SliceFigures) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in figures.reasons.items())


def _limits(job: Job) -> Iterator[str]:
    yield "## Limits"
    yield ""
    for name, value in job.spec.audit.limits.model_dump().items():
        yield f"- {name}: {value}"
