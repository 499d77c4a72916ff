"""plan, run, publish, export: the commands of the flow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchinfer.cli.cascade import print_cascade_plan
from batchinfer.cli.costs import tell_ledger
from batchinfer.cli.notices import model_note
from batchinfer.cli.opening import data_dir, open_job
from batchinfer.cli.options import (
    format_option,
    input_option,
    job_argument,
    json_option,
    output_file,
    pairs,
    yes_option,
)
from batchinfer.cli.summary import print_candidate, print_published, print_report, print_summary, tell_changes
from batchinfer.cli.tables import cell, percent, table
from batchinfer.cli.terminal import emit, tell, tell_dimly, teller, warn
from batchinfer.cli.values import Integer, PathText, Positive
from batchinfer.core.clock import RUN_STOP_SECONDS
from batchinfer.core.columns import query_text
from batchinfer.core.cost import money_text
from batchinfer.errors import BatchinferError, GateFailed, SpecError, UsageError, counted

if TYPE_CHECKING:
    from batchinfer.core.home import JobData
    from batchinfer.job.reader import Job
    from batchinfer.planning.estimate import PlanReport

SHOWN = 20
LONG_PROMPT = 2000  # characters of a prompt that a plan shows
ALL_ROWS = "*"  # --refresh without a value
WIDEST = 200  # characters of what happened to a row


@click.command("plan")
@job_argument
@input_option
@click.option("--probe", is_flag=True, help="Ask 32 prompts first, to know the time; the cache keeps the answers.")
@json_option
def plan_(job: str, input_path: Path | None, probe: bool, as_json: bool) -> None:
    """The dry run: rows, unique prompts, what is cached, what a run would generate and cost.

    It asks nothing and writes nothing, unless --probe is given.
    """
    from batchinfer.cli.progress import ProgressConsole
    from batchinfer.pipeline import plan as planning
    from batchinfer.planning.prepare import Options

    opened, data = open_job(job)
    model_note(opened, as_json=as_json)
    options = Options(input=input_path)
    if probe:
        with ProgressConsole() as show:
            planning.probe(opened, data, options, show)
    result = planning.plan(opened, data, options, tell_dimly)
    emit(result.to_json(), as_json, lambda: _print_plan(result, asks=opened.spec.prompt is not None))


def _print_plan(result: PlanReport, *, asks: bool) -> None:
    """asks: whether the job asks a model; otherwise it lives by imports."""
    counts = result.counts
    rows: list[tuple[str, Any]] = [
        *(
            []
            if result.made_of is None or result.made_of.found_by is None
            else [("list", cell(result.made_of.found_by))]
        ),
        ("rows in the list", f"{counts.rows:,}"),
        *([] if counts.misses is None else [("  asked for and not found", f"{counts.misses:,}")]),
        ("  bad rows", f"{counts.bad:,}"),
        ("  duplicates of another row's prompt" if asks else "  duplicates of another row", f"{counts.duplicates:,}"),
        ("unique prompts" if asks else "unique rows", f"{counts.unique:,}"),
        ("  cached" if asks else "  imported", f"{counts.cached:,}"),
        *(_cost(result) if asks else [("  without a prediction", f"{counts.to_generate:,}")]),
    ]
    table(f"Plan of {result.job}", ["what", "figure"], rows, right=["figure"])
    if result.scoring is not None and result.scoring.collisions:
        tell(f"Whole choices are scored, since first tokens collide: {'; '.join(result.scoring.collisions)}.")
    if result.no_prompt:
        of = "" if result.prompt_tokens_exact else " of those that were looked at"
        named = "; ".join(
            f"{cell(query_text(row['query']))}: {cell(row['detail'], WIDEST)}" for row in result.no_prompt_rows
        )
        tell(f"No prompt can be made of {counted(result.no_prompt, 'row')}{of}, which will fail: {named}")
    if result.too_long:
        named = "; ".join(str(cell(query_text(query))) for query in result.too_long_rows)
        of = "" if result.prompt_tokens_exact else f" of the {result.looked_at:,} that were looked at"
        tell(
            f"{counted(result.too_long, 'prompt')}{of} will not fit the model's window of {result.window:,} tokens, and fail: {named}"
        )
    elif result.window and not result.prompt_tokens_exact:
        tell(
            f"{result.looked_at:,} of the prompts were looked at: all fit the model's window of {result.window:,} tokens."
        )
    if result.cascade is not None:
        print_cascade_plan(result.cascade)
    _tell_advice(result)
    if result.prompt is None:
        return
    none = "The first prompt of the list, without the model's chat form; a run would ask none:"
    click.secho("The first prompt that a run would ask:" if counts.to_generate else none, bold=True)
    click.echo(result.prompt[:LONG_PROMPT])
    if len(result.prompt) > LONG_PROMPT:
        tell(f"… {len(result.prompt) - LONG_PROMPT:,} more characters; batchinfer try {result.job} shows a whole one.")


def _tell_advice(result: PlanReport) -> None:
    """That another order of the template's parts would be cheaper."""
    if (advice := result.advice) is None:
        return
    names = ", ".join(str(cell(name)) for name in advice.columns)
    tell(
        f"With the template's parts in the order {names}, prefix caching would save {percent(advice.prefix_saving)} of the prompt tokens, "
        f"not {percent(result.prefix_saving)}. Read that template first (--json has it): it is another question, so all would be asked "
        "again, and answers may differ. batchinfer eval compares them."
    )


def _cost(result: PlanReport) -> list[tuple[str, Any]]:
    """What the model would be asked, as rows of the plan's table."""
    from batchinfer.cli.progress import saving

    counts, saved = result.counts, saving(result.prefix_saving)
    return [
        ("  failed before; --retry-failed tries them again", f"{counts.failed:,}"),
        ("  to generate", f"{counts.to_generate:,}"),
        ("prompt tokens", f"{result.prompt_tokens:,}{'' if result.prompt_tokens_exact else ' (from a sample)'}"),
        *([] if saved is None else [("  of which prefix caching will save", saved)]),
        *([("requests per prompt", f"{result.scoring.requests:,}")] if result.scoring and result.scoring.whole else []),
        *_time(result),
        *_money(result),
    ]


def _time(result: PlanReport) -> list[tuple[str, Any]]:
    from batchinfer.cli.progress import duration

    seconds, estimate = result.estimate_seconds, result.estimate
    if seconds is None:
        return [("time", "unknown" if result.cascade is not None else "unknown: --probe asks 32 prompts to find out")]
    rows: list[tuple[str, Any]] = [("time, from earlier runs here", duration(seconds))]
    if estimate is not None and estimate.low is not None and estimate.high is not None:
        rows.append(("  in 95 of 100 such runs", f"{duration(estimate.low)} to {duration(estimate.high)}"))
    return rows


def _money(result: PlanReport) -> list[tuple[str, Any]]:
    if result.estimate_money is None or result.currency is None:
        return []
    return [("cost, from the same", money_text(result.estimate_money, result.currency))]


def _only(refresh: str | None, job: Job) -> tuple[str, str] | None:
    """The column and value that --refresh names; None where it names none, or is not given."""
    if refresh is None or refresh == ALL_ROWS:
        return None
    [named] = pairs([refresh], job.spec.input.key, option="--refresh").items()
    return named


@click.command("run")
@job_argument
@input_option
@click.option("--limit", type=Integer(min=1), metavar="N", help="Generate at most N prompts; publishes nothing.")
@click.option("--max-hours", type=Positive(), metavar="H", help="Stop after H hours, as with Ctrl-C.")
@click.option(
    "--budget",
    type=Positive(),
    metavar="MONEY",
    help="Stop once this run, and those before it that did not come to their end, cost so much in cost.currency.",
)
@click.option(
    "--stop-seconds",
    type=Positive(),
    default=RUN_STOP_SECONDS,
    show_default=True,
    metavar="S",
    help="Seconds that prompts in flight have to finish after Ctrl-C or SIGTERM.",
)
@click.option("--no-publish", is_flag=True, help="Fill the cache only.")
@click.option("--retry-failed", is_flag=True, help="Try again what failed before.")
@click.option(
    "--refresh",
    is_flag=False,
    flag_value=ALL_ROWS,
    default=None,
    metavar="[COLUMN=VALUE]",
    help="Regenerate all rows, or those with this value.",
)
@click.option("--update-model", is_flag=True, help="Use the model as it is now, instead of the recorded one.")
@yes_option
@json_option
def run_(job: str, input_path: Path | None, limit: int | None, max_hours: float | None, budget: float | None, stop_seconds: float,
         no_publish: bool, retry_failed: bool, refresh: str | None, update_model: bool, yes: bool, as_json: bool) -> None:  # fmt: skip
    """Plan, generate what the cache lacks, store it, gate it, publish a version.

    Asks first if the list comes from another place than the served version's, if most of the cache would be regenerated,
    or if more than half of what is served would be removed. --yes answers yes to all of these.
    """
    from batchinfer.cli.progress import ProgressConsole
    from batchinfer.pipeline.ledger import read_ledger
    from batchinfer.pipeline.run import run
    from batchinfer.planning.prepare import Options

    opened, data = open_job(job) if limit else _open_to_run(job)
    options = Options(
        input=input_path, limit=limit, max_hours=max_hours, budget=budget, stop_seconds=stop_seconds, publish=not no_publish,
        retry_failed=retry_failed,
        refresh=refresh is not None, refresh_where=_only(refresh, opened),
        update_model=update_model, yes=yes,
    )  # fmt: skip
    model_note(opened, as_json=as_json)
    with reporting(opened, as_json=as_json), ProgressConsole() as show:
        report = run(opened, data, options, show)
    ledger = None
    with contextlib.suppress(BatchinferError):  # the run is over and well, whoever works with the cache by now
        ledger = read_ledger(data)

    def text() -> None:
        print_report(report, asks=opened.spec.prompt is not None)
        tell_ledger(ledger)

    emit(report.to_json() | {"ledger": None if ledger is None else ledger.to_json()}, as_json, text)


def _open_to_run(job: str) -> tuple[Job, JobData]:
    """The job; if its file is wrong, whoever is to know that no run began is told. Raises SpecError."""
    try:
        return open_job(job)
    except SpecError as exc:
        from batchinfer.pipeline.attempt import tell_bad_job_file

        if exc.listed:
            tell_bad_job_file(data_dir(), Path(exc.listed[0].file), exc, warn)
        raise


@click.command("publish")
@job_argument
@input_option
@click.option(
    "--candidate", metavar="rN", help="Publish this rejected candidate as it is, instead of what the cache has."
)
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
    would be removed. --yes answers yes to both.
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
    opened, data = open_job(job)
    with reporting(opened, as_json=as_json), ProgressConsole() as show:
        options = Options(input=input_path, yes=yes)
        if candidate is None:
            report = publish(opened, data, options, show, why, allow_empty=allow_empty)
            emit(report.to_json(), as_json, lambda: print_published(report))
        else:
            published = publish_candidate(opened, data, options, show, candidate, why, allow_empty=allow_empty)
            emit(published.to_json(), as_json, lambda: print_candidate(published))


@contextlib.contextmanager
def reporting(job: Job, *, as_json: bool) -> Iterator[None]:
    """Prints what there is to see of a run that did not end well, for people; with --json the report stands beside the error."""
    try:
        yield
    except BatchinferError as exc:
        if exc.report is not None and not as_json:
            _print_ended(exc, asks=job.spec.prompt is not None)
        raise


def _print_ended(exc: BatchinferError, *, asks: bool) -> None:
    """What a run did before it was refused or stopped, and some of the rows for which checks of the gate failed."""
    from batchinfer.pipeline.report import RunReport

    if isinstance(exc.report, RunReport):
        if exc.report.run_id is not None:
            print_summary(exc.report, asks=asks)
        tell_changes(exc.report.changes, "what is served it would be")
    if isinstance(exc, GateFailed):
        _print_refused(exc)


def _print_refused(refused: GateFailed) -> None:
    """Some of the rows for which checks of the gate failed."""
    assert refused.report is not None
    checks = refused.report.to_json()["gate"]
    rows = [(check["name"], example) for check in checks for example in check["examples"]]
    if rows:
        table("Refused by the gate, for example", ["check", "row"], rows, free=["row"])


@click.command("export")
@job_argument
@click.argument("file", type=PathText())
@format_option()
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
    emit(report.to_json(), as_json, lambda: teller(output)(f"Wrote {counted(report.rows, 'row')} to {output}."))
