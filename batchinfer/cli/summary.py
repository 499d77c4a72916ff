"""What a run or a publishing came to, for people: a small table, and what changed of what is served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchinfer.cli.cascade import print_cascade
from batchinfer.cli.costs import cost_rows, tell_costs
from batchinfer.cli.tables import cell, table
from batchinfer.cli.terminal import tell
from batchinfer.core.columns import query_text
from batchinfer.errors import counted

if TYPE_CHECKING:
    from batchinfer.pipeline.report import RunReport
    from batchinfer.publish.changes import ServedChanges
    from batchinfer.publish.refused import CandidateReport


def print_report(report: RunReport, *, asks: bool) -> None:
    """All that a run has to say at its end."""
    print_summary(report, asks=asks)
    if report.cascade is not None:
        print_cascade(report.cascade)
    if report.choice_mass is not None:
        small = (
            f" In {counted(report.choice_mass.small, 'row')} it is under 0.10: the model wanted to say something else."
            if report.choice_mass.small
            else ""
        )
        tell(
            f"Probability of all choices together: median {report.choice_mass.median:.2f}, "
            f"5th percentile {report.choice_mass.p05:.2f}.{small}"
        )
    print_published(report)


def print_summary(report: RunReport, *, asks: bool) -> None:
    """What a run did, as a small table. asks: whether the job asks a model; otherwise it lives by imports."""
    from batchinfer.cli.progress import duration

    counts = [
        ("rows in the list", report.rows),
        *([] if report.misses is None else [("  asked for and not found", report.misses)]),
        ("  bad rows", report.bad),
        ("  duplicates of another row's prompt" if asks else "  duplicates of another row", report.duplicates),
        ("unique prompts" if asks else "unique rows", report.unique),
        *(_answered(report) if asks else [("  imported", report.cached), ("  without a prediction", report.remaining)]),
    ]
    rows = [(name, f"{count:,}") for name, count in counts] + _rates(report)
    rows.append(("time", duration(report.seconds or 0)))
    if report.estimate is not None:
        rows.append(("  as it was estimated", duration(report.estimate.seconds)))
    if report.engine_load_seconds:
        rows.append(("  of which to load the model", duration(report.engine_load_seconds)))
    rows += cost_rows(report)
    table(f"Run {report.run_id} of {report.job}", ["what", "figure"], rows, right=["figure"])


def _answered(report: RunReport) -> list[tuple[str, int]]:
    """How the prompts fared."""
    names = ("cached", "generated", "failed", "remaining")
    return [(f"  {name}", getattr(report, name)) for name in names]


def _rates(report: RunReport) -> list[tuple[str, str]]:
    """How fast the model answered, if it was asked."""
    from batchinfer.cli.progress import saving

    if not report.rows_per_second:
        return []
    saved = saving(report.prefix_saving)
    return [
        ("rows per second", f"{report.rows_per_second:.1f}"),
        ("prompt tokens per second", f"{report.prompt_tokens_per_second or 0:,.0f}"),
        *([] if saved is None else [("  of which prefix caching saved", saved)]),
        ("output tokens per second", f"{report.output_tokens_per_second or 0:,.0f}"),
    ]


def print_published(report: RunReport) -> None:
    """Whether a version was published, and what it changed."""
    if report.version is not None:
        _tell_version(report.version, report.entries or 0, report.carried)
    elif report.unchanged:
        _tell_same(report.same_as)
    else:
        rest = f"batchinfer run {report.job} makes the rest and does both; " if report.remaining else ""
        tell(
            "Nothing was published, and nothing was compared with what is served: the run had --limit or --no-publish. "
            f"{rest}batchinfer publish {report.job} does both{' now' if rest else ''}."
        )
    _tell_served(report)
    tell_costs(report)
    if report.failed or report.bad:
        tell(f"See batchinfer failures {report.job}.")


def print_candidate(report: CandidateReport) -> None:
    """The same of a refused candidate that was published as it is."""
    if report.version is not None:
        _tell_version(report.version, report.manifest.rows, report.manifest.carried)
    else:
        _tell_same(report.same_as)
    _tell_served(report)


def _tell_version(version: int, entries: int, carried: int) -> None:
    kept = f", {carried:,} of them kept from the version before" if carried else ""
    size = "1 entry" if entries == 1 else f"{entries:,} entries"
    tell(f"Published version {version} with {size}{kept}.")


def _tell_same(current: int | None) -> None:
    tell(f"No changes to publish: version {current}, the current one, has the same entries.")


def _tell_served(report: RunReport | CandidateReport) -> None:
    """What changes of what clients get, and that a pin keeps it from them."""
    pinned = report.pinned
    tell_changes(report.changes, "what was served before" if pinned is None else f"version {pinned}, which is served")
    _tell_pin(report.job, report.version or report.same_as, pinned)


def tell_changes(changes: ServedChanges | None, against: str = "what was served before") -> None:
    """What a version changes, or would change, of what is served, with examples; nothing of a first version."""
    if changes is None or not changes.examples:
        return
    tell(f"Against {against}: {changes} (added, removed, changed).")
    rows = [[entry.change, query_text(entry.query), entry.old, entry.new] for entry in changes.examples]
    shown = [[cell(value) for value in row] for row in rows]
    table("", ["change", "query", "old", "new"], shown, free=["query", "old", "new"])


def _tell_pin(job: str, version: int | None, pinned: int | None) -> None:
    if pinned is not None:
        hidden = "the current one" if version is None else f"version {version}"
        tell(f"Version {pinned} is pinned and served in place of {hidden}: batchinfer unpin {job} ends that.")
