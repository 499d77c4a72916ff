"""plan, run, publish: the commands that need the query list."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchinfer.cli.common import (
    cell,
    counted,
    dim,
    emit,
    format_option,
    input_option,
    job_argument,
    json_option,
    model_note,
    open_job,
    output_file,
    pairs,
    percent,
    query_text,
    served_data,
    table,
    tell,
    teller,
    yes_option,
)
from batchinfer.errors import GateFailed, UsageError

if TYPE_CHECKING:
    from batchinfer.pipeline.report import RunReport
    from batchinfer.planning.estimate import PlanReport
    from batchinfer.publish.candidate import CandidateReport
    from batchinfer.publish.changes import ServedChanges

SHOWN = 20


@click.command("plan")
@job_argument
@input_option
@json_option
def plan_(job: str, input_path: Path | None, as_json: bool) -> None:
    """The dry run: rows, unique prompts, cache hits, what a run would generate and cost."""
    from batchinfer.pipeline.plan import plan
    from batchinfer.planning.prepare import Options

    opened, data = open_job(job)
    with model_note(opened, data, as_json=as_json):
        result = plan(opened, data, Options(input=input_path), dim)
    emit(result.to_json(), as_json, lambda: _print_plan(result))


def _print_plan(result: PlanReport) -> None:
    from batchinfer.cli.progress import duration

    counts, seconds = result.counts, result.estimate_seconds
    rows: list[tuple[str, Any]] = [
        ("rows in the list", f"{counts.rows:,}"),
        *([] if counts.misses is None else [("  asked for and not found", f"{counts.misses:,}")]),
        ("  bad rows", f"{counts.bad:,}"),
        ("  duplicates of another row's prompt", f"{counts.duplicates:,}"),
        ("unique prompts", f"{counts.unique:,}"),
        ("  answered by the cache", f"{counts.hits:,}"),
        ("  failed before, not tried again by themselves", f"{counts.failed:,}"),
        ("to generate", f"{counts.to_generate:,}"),
        ("prompt tokens", f"{result.prompt_tokens:,}{'' if result.prompt_tokens_exact else ' (from a sample)'}"),
        ("  of which prefix caching will save", percent(result.prefix_saving)),
        ("time, from earlier runs here", "unknown" if seconds is None else duration(seconds)),
    ]
    table(f"Plan of {result.job}", ["what", "figure"], rows, right=["figure"])


@click.command("run")
@job_argument
@input_option
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Generate at most N prompts; publishes nothing.")
@click.option(
    "--max-hours", type=click.FloatRange(min=0, min_open=True), metavar="H", help="Stop as with Ctrl-C after so long."
)
@click.option("--no-publish", is_flag=True, help="Fill the cache only.")
@click.option("--retry-failed", is_flag=True, help="Try again what failed before.")
@click.option(
    "--refresh",
    is_flag=False,
    flag_value="",
    default=None,
    metavar="[COLUMN=VALUE]",
    help="Make all rows again, or those.",
)
@click.option("--update-model", is_flag=True, help="Take the model as it is now, in place of the recorded one.")
@yes_option
@json_option
def run_(job: str, input_path: Path | None, limit: int | None, max_hours: float | None, no_publish: bool, retry_failed: bool,
         refresh: str | None, update_model: bool, yes: bool, as_json: bool) -> None:  # fmt: skip
    """Plan, generate what the cache lacks, store it, gate it, publish a version.

    Asks first if the list comes from another place than the served version's, if most of the cache would be regenerated,
    or if more than half of what is served would be removed.
    """
    from batchinfer.cli.progress import ProgressConsole
    from batchinfer.pipeline.run import run
    from batchinfer.planning.prepare import Options

    opened, data = open_job(job, makes=True)
    options = Options(
        input=input_path, limit=limit, max_hours=max_hours, publish=not no_publish, retry_failed=retry_failed,
        refresh=refresh is not None, refresh_where=next(iter(pairs([refresh], opened.spec.input.key).items())) if refresh else None,
        update_model=update_model, yes=yes,
    )  # fmt: skip
    with reporting(as_json=as_json), model_note(opened, data, as_json=as_json), ProgressConsole() as show:
        report = run(opened, data, options, show)
    emit(report.to_json(), as_json, lambda: _print_report(report))


@click.command("publish")
@job_argument
@input_option
@click.option("--candidate", metavar="rN", help="Publish this rejected candidate as it is, in place of the cache's.")
@click.option("--force", is_flag=True, help="Publish although the gate refuses; needs --why.")
@click.option("--why", metavar="TEXT", help="The reason for --force, kept in the version's manifest.")
@click.option("--allow-empty", is_flag=True, help="With --force: publish a version that has no entries.")
@yes_option
@json_option
def publish_(
    job: str, input_path: Path | None, candidate: str | None, force: bool, why: str | None, allow_empty: bool, yes: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Build a version from what the cache has now, gate it, and make it current.

    Asks first if the list comes from another place than the served version's, or if more than half of what is served
    would be removed.
    """
    from batchinfer.cli.progress import ProgressConsole
    from batchinfer.pipeline.publish import publish, publish_candidate
    from batchinfer.planning.prepare import Options

    if force and not (why and why.strip()):
        raise UsageError("--force needs --why TEXT: the reason is kept with the version.")
    if why is not None and not force:
        raise UsageError("--why goes with --force: a version that passes its gate needs no reason.")
    if allow_empty and not force:
        raise UsageError("--allow-empty goes with --force: the gate refuses a version that has no entries.")
    opened, data = open_job(job, makes=True)
    with reporting(as_json=as_json), ProgressConsole() as show:
        options = Options(input=input_path, yes=yes)
        if candidate is None:
            report = publish(opened, data, options, show, why, allow_empty=allow_empty)
            emit(report.to_json(), as_json, lambda: _print_published(report))
        else:
            published = publish_candidate(opened, data, options, show, candidate, why, allow_empty=allow_empty)
            emit(published.to_json(), as_json, lambda: _print_candidate(published))


@contextlib.contextmanager
def reporting(*, as_json: bool) -> Iterator[None]:
    """Prints what the gate refused, for people; with --json the report stands beside the error."""
    try:
        yield
    except GateFailed as exc:
        if exc.report is not None and not as_json:
            _print_refused(exc)
        raise


def _print_refused(refused: GateFailed) -> None:
    """Some of the rows for which checks of the gate failed."""
    assert refused.report is not None
    checks = refused.report.to_json()["gate"]
    rows = [(check["name"], example) for check in checks for example in check["examples"]]
    if rows:
        table("Refused by the gate, for example", ["check", "row"], rows)


def _print_report(report: RunReport) -> None:
    from batchinfer.cli.progress import duration

    missed = "" if report.misses is None else f" ({report.misses:,} of them asked for and not found)"
    tell(
        f"{report.job}, run {report.run_id}: {report.rows:,} rows{missed} = {report.bad:,} bad "
        f"+ {report.duplicates:,} duplicates + {report.unique:,} prompts; of these {report.hits:,} from cache, "
        f"{report.generated:,} generated, {report.failures:,} failed, {report.left:,} left."
    )
    if report.rows_per_second:
        tell(
            f"{report.rows_per_second:.1f} rows/s, {report.prompt_tokens_per_second or 0:,.0f} prompt and "
            f"{report.output_tokens_per_second or 0:,.0f} output tokens/s, {percent(report.prefix_saving)} of prompt tokens saved "
            f"by prefix caching; {duration(report.seconds or 0)} in all, {duration(report.engine_load_seconds)} of it to load the model."
        )
    else:
        tell(f"The model was not needed; {report.seconds:.1f} s in all.")
    if report.choice_mass is not None:
        small = (
            f" In {report.choice_mass.small:,} rows it is under 0.10: the model wanted to say something else."
            if report.choice_mass.small
            else ""
        )
        tell(
            f"Probability of all choices together: median {report.choice_mass.median:.2f}, "
            f"5th percentile {report.choice_mass.p05:.2f}.{small}"
        )
    _print_published(report)


def _print_published(report: RunReport) -> None:
    if report.version is not None:
        _tell_version(report.version, report.entries or 0, report.carried)
        _tell_changes(report.changes)
    elif report.unchanged:
        tell("No changes to publish: the version that is served has the same entries.")
    else:
        tell("Nothing was published.")
    _tell_pin(report.job, report.version, report.pinned)
    if report.failures or report.bad:
        tell(f"See batchinfer failures {report.job}.")


def _print_candidate(report: CandidateReport) -> None:
    if report.version is not None:
        _tell_version(report.version, report.manifest.rows, report.manifest.carried)
        _tell_changes(report.changes)
    else:
        tell("No changes to publish: the version that is served has the same entries.")
    _tell_pin(report.job, report.version, report.pinned)


def _tell_version(version: int, entries: int, carried: int) -> None:
    kept = f", {carried:,} of them kept from the version before" if carried else ""
    tell(f"Published version {version} with {entries:,} entries{kept}.")


def _tell_changes(changes: ServedChanges | None) -> None:
    """What the version changes of what was served before, with examples; nothing of a first version."""
    if changes is None or not changes.examples:
        return
    tell(f"Against what was served before: {changes} (added, removed, changed).")
    rows = [[entry.change, query_text(entry.query), entry.old, entry.new] for entry in changes.examples]
    table("", ["change", "query", "old", "new"], [[cell(value) for value in row] for row in rows])


def _tell_pin(job: str, version: int | None, pinned: int | None) -> None:
    if pinned is not None:
        hidden = "the current one" if version is None else f"version {version}"
        tell(f"Version {pinned} is pinned and served in place of {hidden}: batchinfer unpin {job} ends that.")


@click.command("failures")
@job_argument
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help=f"Show at most N.  [default: {SHOWN}; all with --json]"
)
@json_option
def failures_(job: str, limit: int | None, as_json: bool) -> None:
    """Rows without a prediction, and why."""
    from batchinfer.pipeline.history import failures

    data = served_data(job)
    found = failures(data, limit or (None if as_json else SHOWN))

    def text() -> None:
        if not found.reasons:
            click.echo("No failures.")
            return
        click.echo(", ".join(f"{count:,} {reason}" for reason, count in found.reasons) + ".")
        shown = [[row.reason, query_text(row.query), row.detail] for row in found.rows]
        table("", ["reason", "query", "what happened"], shown)
        if sum(count for _, count in found.reasons) > len(found.rows):
            click.echo(f"The newest {len(found.rows)} are shown; --limit or --json shows more.")
        click.echo(f"Try them again: batchinfer run {data.name} --retry-failed")

    emit([row.to_json() for row in found.rows], as_json, text)


@click.command("runs")
@job_argument
@json_option
def runs_(job: str, as_json: bool) -> None:
    """The history of runs, newest first."""
    from batchinfer.pipeline.history import runs

    reports = [run.to_json() for run in runs(served_data(job))]
    columns = ["run", "started (UTC)", "status", "rows", "hits", "made", "failed", "left", "ver.", "rows/s", "saved"]

    def text() -> None:
        rows = [
            [
                report["run_id"], report["started_at"][5:16].replace("T", " "), report["status"], report.get("rows"), report.get("hits"),
                report.get("generated"), report.get("failures"), report.get("left"), report.get("version"),
                report.get("rows_per_second") and f"{report['rows_per_second']:.1f}", percent(report.get("prefix_saving")),
            ]
            for report in reports
        ]  # fmt: skip
        table("", columns, rows, right=[name for name in columns if name not in ("started (UTC)", "status")])

    emit(reports, as_json, text)


@click.command("export")
@job_argument
@click.argument("file")
@format_option
@input_option
@yes_option
@json_option
def export_(job: str, file: str, chosen: str | None, input_path: Path | None, yes: bool, as_json: bool) -> None:
    """Write what the cache has for the job's list, with raw text, scores and the list's other columns, in its order.

    FILE ends in .parquet, .csv or .jsonl, or is - for standard output, with --format. Asks first if the list comes from
    another place than the served version's.
    """
    from batchinfer.cli.progress import ProgressConsole
    from batchinfer.pipeline.export import export
    from batchinfer.planning.prepare import Options

    output = output_file(file, chosen, as_json)
    opened, data = open_job(job)
    with ProgressConsole() as show:
        report = export(opened, data, Options(input=input_path, yes=yes), output, show)
    emit(report.to_json(), as_json, lambda: teller(output)(f"Wrote {counted(report.rows, 'row')} to {file}."))
