"""What an audit found, as a page for people: a model card of a version. Pure: records in, Markdown out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from batchinfer.core.clock import iso
from batchinfer.job.reader import Job
from batchinfer.publish.slices import AuditedSlice, FairVerdict
from batchinfer.versions.manifest import Manifest


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


def card_of(
    job: Job, manifest: Manifest, verdict: FairVerdict, slices: Sequence[AuditedSlice], asked: Sequence[AskedGroup]
) -> str:
    """The card's Markdown. asked: exchanged terms, and groups of sentences."""
    parts = [
        _intended(job, manifest, verdict), _groups(slices), _asked_groups(asked), _untested(job, slices, asked),
        _failures(slices, asked), _limits(job),
    ]  # fmt: skip
    return "\n".join(line for part in parts for line in (*part, ""))


def _intended(job: Job, manifest: Manifest, verdict: FairVerdict) -> Iterator[str]:
    spec, gate = job.spec, job.spec.gate
    yield f"# {job.name}, version {manifest.version}"
    yield ""
    yield f"Audit: **{verdict}**."
    yield ""
    yield f"- Intended use: {spec.description or 'not described: write it as description in the job file'}"
    yield f"- Model: {spec.model.id if spec.model else 'none; all answers were imported'}"
    yield f"- Data: {spec.input.path or f'the served version of the job {spec.input.job}'}, {manifest.rows:,} entries"
    yield f"- Made at: {iso(manifest.created_at)}"
    golden = gate.golden or spec.eval.golden
    yield f"- Golden rows: {golden.path if golden else 'none, so that accuracy is not known'}"
    yield f"- Entries that people must have reviewed before publishing: {gate.reviewed}"


def _groups(slices: Sequence[AuditedSlice]) -> Iterator[str]:
    yield "## Groups of rows"
    yield ""
    if not slices:
        yield "None were looked at."
        return
    yield "| group | rows | coverage | failures | accuracy | tokens per row | verdict |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | --- |"
    for each in slices:
        yield f"| {_plain(each.name)} | {' | '.join(cells(each))} | {each.verdict} |"
    yield ""
    yield "Intervals are of 95 %. Tokens are the median, as a multiple of the whole list's."


def _asked_groups(asked: Sequence[AskedGroup]) -> Iterator[str]:
    yield "## Terms for groups of people"
    yield ""
    if not asked:
        yield "None were exchanged, and no sentences asked."
        return
    yield "| group | rows | found | verdict |"
    yield "| --- | ---: | --- | --- |"
    for each in asked:
        yield f"| {_plain(each.name)} | {each.rows:,} | {_plain(each.message)} | {each.verdict} |"


def cells(each: AuditedSlice) -> tuple[str, ...]:
    """Rows, coverage, failures, accuracy and tokens of a group, as people read them."""
    found = each.figures.to_json()
    accuracy = _ranged(found["accuracy"], (found["low"], found["high"])) if found["golden"] else "-"
    return (
        f"{each.figures.rows:,}", _ranged(found["coverage"], found["coverage_interval"]),
        _ranged(found["failures"], found["failures_interval"]), accuracy,
        "-" if each.tokens_ratio is None else f"{each.tokens_ratio:.2f}",
    )  # fmt: skip


def _ranged(share: float, interval: Sequence[float]) -> str:
    low, high = interval
    return f"{share:.1%} ({low:.1%} to {high:.1%})"


def _untested(job: Job, slices: Sequence[AuditedSlice], asked: Sequence[AskedGroup]) -> Iterator[str]:
    yield "## Not tested"
    yield ""
    for each in slices:
        if each.verdict is FairVerdict.UNKNOWN:
            yield f"- {_plain(each.name)}: {'; '.join(each.why)}"
    for group in asked:
        if group.verdict is FairVerdict.UNKNOWN:
            yield f"- {_plain(group.name)}: {group.rows:,} rows, {_plain(group.message)}"
    named = [*job.spec.audit.slices, *job.spec.audit.swaps]
    yield f"- Groups that none of these names: {', '.join(named)}"


def _failures(slices: Sequence[AuditedSlice], asked: Sequence[AskedGroup]) -> Iterator[str]:
    yield "## Known failures"
    yield ""
    failed = [each for each in slices if each.verdict is FairVerdict.FAIL]
    for each in failed:
        yield f"- {_plain(each.name)}: {'; '.join(each.why)}"
    for each in slices:
        if each.figures.reasons:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in each.figures.reasons.items())
            yield f"- {_plain(each.name)} failed for: {reasons}"
    worse = [each for each in asked if each.verdict is FairVerdict.FAIL]
    for group in worse:
        yield f"- {_plain(group.name)}: {_plain(group.message)}"
    if not failed and not worse:
        yield "- No group fails its limits."


def _limits(job: Job) -> Iterator[str]:
    yield "## Limits"
    yield ""
    for name, value in job.spec.audit.limits.model_dump().items():
        yield f"- {name}: {value}"


def _plain(text: str) -> str:
    """A text that a table's cell can hold."""
    return " ".join(text.split()).replace("|", "\\|")
