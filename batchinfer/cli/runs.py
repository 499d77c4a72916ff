"""plan, run, publish: the commands that need the query list."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from batchinfer.cli.common import (
    _options,
    _warn,
    data_dir,
    emit,
    input_option,
    job_argument,
    json_option,
    open_job,
    pairs,
    percent,
    table,
    tell,
)
from batchinfer.core.home import JobData
from batchinfer.errors import BatchinferError, NotFound, UsageError

SHOWN = 20


@click.command("plan")
@job_argument
@input_option
@json_option
def plan_(job: str, input_path: str | None, as_json: bool) -> None:
    """The dry run: rows, unique prompts, cache hits, what a run would generate and cost."""
    from batchinfer.cli.progress import duration
    from batchinfer.planning.estimate import estimate
    from batchinfer.planning.prepare import Options, planned

    opened, data = open_job(job)

    def say(text: str) -> None:
        click.secho(text, dim=True, err=True)

    with planned(opened, data, Options(input=_path(input_path)), say=say) as p:
        result = estimate(p, say)

    def text() -> None:
        rows: list[tuple[str, Any]] = [
            ("rows in the list", f"{result['rows']:,}"),
            *([] if result["misses"] is None else [("  asked for and not found", f"{result['misses']:,}")]),
            ("  bad rows", f"{result['bad']:,}"),
            ("  duplicates of another row's prompt", f"{result['duplicates']:,}"),
            ("unique prompts", f"{result['unique']:,}"),
            ("  answered by the cache", f"{result['hits']:,}"),
            ("  failed before, not tried again by themselves", f"{result['failures']:,}"),
            ("to generate", f"{result['to_generate']:,}"),
            (
                "prompt tokens",
                f"{result['prompt_tokens']:,}{'' if result['prompt_tokens_exact'] else ' (from a sample)'}",
            ),
            ("  of which prefix caching will save", percent(result["prefix_saving"])),
            (
                "time, from earlier runs here",
                "unknown" if result["estimate_seconds"] is None else duration(result["estimate_seconds"]),
            ),
        ]
        table(f"Plan of {result['job']}", ["what", "figure"], rows, right=["figure"])

    emit(result, as_json, text)


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
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def run_(job: str, input_path: str | None, limit: int | None, max_hours: float | None, no_publish: bool, retry_failed: bool,
         refresh: str | None, update_model: bool, yes: bool, as_json: bool) -> None:  # fmt: skip
    """Plan, generate what the cache lacks, store it, gate it, publish a version."""
    from batchinfer.cli.progress import ProgressConsole
    from batchinfer.pipeline.run import run
    from batchinfer.planning.prepare import Options

    opened, data = open_job(job)
    options = Options(
        input=_path(input_path), limit=limit, max_hours=max_hours, publish=not no_publish, retry_failed=retry_failed,
        refresh=refresh is not None, refresh_where=next(iter(pairs([refresh]).items())) if refresh else None,
        update_model=update_model, yes=yes,
    )  # fmt: skip
    with reporting(as_json=as_json), ProgressConsole(yes=yes) as show:
        report = run(opened, data, options, show)
    emit(report, as_json, lambda: _print_report(report))


@click.command("publish")
@job_argument
@input_option
@click.option("--candidate", metavar="rN", help="Publish this rejected candidate as it is, in place of the cache's.")
@click.option("--force", is_flag=True, help="Publish although the gate refuses; needs --why.")
@click.option("--why", metavar="TEXT", help="The reason for --force, kept in the version's manifest.")
@json_option
def publish_(
    job: str, input_path: str | None, candidate: str | None, force: bool, why: str | None, as_json: bool
) -> None:
    """Build a version from what the cache has now, gate it, and make it current."""
    from batchinfer.cli.progress import ProgressConsole
    from batchinfer.pipeline.run import publish_job
    from batchinfer.planning.prepare import Options

    if force and not (why and why.strip()):
        raise UsageError("--force needs --why TEXT: the reason is kept with the version.")
    if why is not None and not force:
        raise UsageError("--why goes with --force: a version that passes its gate needs no reason.")
    opened, data = open_job(job)
    with reporting(as_json=as_json), ProgressConsole() as show:
        report = publish_job(opened, data, Options(input=_path(input_path)), show, candidate=candidate, why=why)
    emit(report, as_json, lambda: _print_published(report))


@contextlib.contextmanager
def reporting(*, as_json: bool) -> Iterator[None]:
    """Prints what there is to see of a run that did not end well, too: with --json its report, else what the gate refused."""
    try:
        yield
    except BatchinferError as exc:
        if exc.report is not None:
            if as_json:
                click.echo(json.dumps(exc.report, ensure_ascii=False, default=str))
            else:
                _print_refused(exc.report)
        raise


def _print_refused(report: dict[str, Any]) -> None:
    """Some of the rows for which checks of the gate failed."""
    rows = [(check["name"], example) for check in report["gate"] for example in check["examples"]]
    if rows:
        table("Refused by the gate, for example", ["check", "row"], rows)


def _print_report(report: dict[str, Any]) -> None:
    from batchinfer.cli.progress import duration

    missed = "" if report["misses"] is None else f" ({report['misses']:,} of them asked for and not found)"
    tell(
        f"{report['job']}, run {report['run_id']}: {report['rows']:,} rows{missed} = {report['bad']:,} bad "
        f"+ {report['duplicates']:,} duplicates + {report['unique']:,} prompts; of these {report['hits']:,} from cache, "
        f"{report['generated']:,} generated, {report['failures']:,} failed, {report['left']:,} left."
    )
    if report["rows_per_second"]:
        tell(
            f"{report['rows_per_second']:.1f} rows/s, {report['prompt_tokens_per_second'] or 0:,.0f} prompt and "
            f"{report['output_tokens_per_second'] or 0:,.0f} output tokens/s, {percent(report['prefix_saving'])} of prompt tokens saved "
            f"by prefix caching; {duration(report['seconds'])} in all, {duration(report['engine_load_seconds'])} of it to load the model."
        )
    else:
        tell(f"The model was not needed; {report['seconds']:.1f} s in all.")
    if "mass" in report:
        mass = report["mass"]
        tell(
            f"Probability of all choices together: median {mass['median']:.2f}, 5th percentile {mass['p05']:.2f}."
            + (
                f" In {mass['below_0.1']:,} rows it is under 0.10: the model wanted to say something else."
                if mass["below_0.1"]
                else ""
            )
        )
    _print_published(report)


def _print_published(report: dict[str, Any]) -> None:
    if report["version"] is not None:
        carried = f", {report['carried']:,} of them kept from the version before" if report["carried"] else ""
        tell(f"Published version {report['version']} with {report['entries']:,} entries{carried}.")
    elif report["unchanged"]:
        tell("Nothing new to publish: the version that is served says the same.")
    else:
        tell("Nothing was published.")
    if report["pinned"] is not None:
        hidden = "the current one" if report["version"] is None else f"version {report['version']}"
        tell(
            f"Version {report['pinned']} is pinned and served in place of {hidden}: batchinfer unpin {report['job']} ends that."
        )
    if report.get("failures") or report.get("bad"):
        tell(f"See batchinfer failures {report['job']}.")


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text).absolute()


@click.command("failures")
@job_argument
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help=f"Show at most N.  [default: {SHOWN}; all with --json]"
)
@json_option
def failures_(job: str, limit: int | None, as_json: bool) -> None:
    """The dead letters: rows without a prediction, and why."""
    from batchinfer.cache.store import Store

    opened, data = open_job(job)
    store = _existing(Store(data.cache), data)
    rows = store.failures(limit or (None if as_json else SHOWN))

    def text() -> None:
        reasons = store.failure_reasons()
        if not reasons:
            click.echo("No failures.")
            return
        click.echo(", ".join(f"{count:,} {reason}" for _, reason, count in reasons) + ".")
        shown = [[row["reason"], _query(row["query"]), row["detail"]] for row in rows]
        table("", ["reason", "query", "what happened"], shown)
        if sum(count for *_, count in reasons) > len(rows):
            click.echo(f"The newest {len(rows)} are shown; --limit or --json shows more.")
        click.echo(f"Try them again: batchinfer run {opened.name} --retry-failed")

    emit(rows, as_json, text)


@click.command("runs")
@job_argument
@json_option
def runs_(job: str, as_json: bool) -> None:
    """The history of runs, newest first."""
    from batchinfer.cache.store import Store

    _, data = open_job(job)
    reports = _existing(Store(data.cache), data).runs()
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
@click.argument("file", type=click.Path(dir_okay=False))
@input_option
@json_option
def export_(job: str, file: str, input_path: str | None, as_json: bool) -> None:
    """Write FILE.parquet: what the cache has for the job's list, with raw text and scores."""
    from batchinfer.pipeline.export import export

    opened, data = open_job(job)
    target = Path(file).absolute()
    if not target.parent.is_dir():
        raise UsageError(f"The folder {target.parent} does not exist: make it first.")
    count = export(opened, data, _options(input_path), target, _warn)
    emit(
        {"job": opened.name, "file": str(target), "rows": count},
        as_json,
        lambda: click.echo(f"Wrote {count:,} rows to {file}."),
    )


def _existing(store: Any, data: JobData) -> Any:
    if not store.path.exists():
        raise NotFound(f"The job {data.name} has not been run yet in {data_dir()}.")
    store.prepare()
    return store


def _query(query: dict[str, Any] | None) -> str:
    return ", ".join(f"{name}={value}" for name, value in (query or {}).items())
