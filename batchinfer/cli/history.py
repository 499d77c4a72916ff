"""What earlier runs left: their history, and the rows without a prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from batchinfer.cli.opening import served_data
from batchinfer.cli.options import job_argument, json_option
from batchinfer.cli.tables import cell, table
from batchinfer.cli.terminal import emit, tell
from batchinfer.cli.values import Integer
from batchinfer.core.columns import query_text
from batchinfer.errors import counted

if TYPE_CHECKING:
    from batchinfer.pipeline.history import Failures
    from batchinfer.pipeline.ledger import Ledger

SHOWN = 20
WHOLE = ("done", "rejected")  # runs that did all that they were to do
WIDEST = 200  # characters of what happened to a row


@click.command("failures")
@job_argument
@click.option("--limit", type=Integer(min=1), metavar="N", help=f"Show at most N.  [default: {SHOWN}; all with --json]")
@json_option
def failures_(job: str, limit: int | None, as_json: bool) -> None:
    """Rows without a prediction, and why."""
    from batchinfer.pipeline.history import failures

    data = served_data(job)
    found = failures(data, limit or (None if as_json else SHOWN))

    def text() -> None:
        if found.reasons:
            _print_failures(data.name, found)
        else:
            click.echo(f"No failures of {data.name} in the data folder {data.root}.")
        _tell_remaining(data.name, found.remaining)

    emit([row.to_json() for row in found.rows], as_json, text)


def _tell_remaining(job: str, remaining: int | None) -> None:
    """That rows have no prediction although they did not fail."""
    if remaining is None:
        tell("The last run is still going, or was cut short: more rows may have no prediction yet.")
    elif remaining:
        tell(
            f"When the last run ended, {counted(remaining, 'more prompt')} had no prediction yet: batchinfer plan {job}"
        )


def _print_failures(job: str, found: Failures) -> None:
    """The reasons with the fix of each, then the newest rows."""
    reasons = [[f"{reason.count:,}", reason.reason, reason.fix] for reason in found.reasons]
    table("", ["count", "reason", "fix"], reasons, right=["count"], free=["fix"])
    shown = [[row.reason, cell(query_text(row.query)), cell(row.detail, WIDEST)] for row in found.rows]
    columns = ["reason", "query", "what happened"]
    if any(row.text for row in found.rows):
        shown = [[*cells, cell(row.text or "", WIDEST)] for cells, row in zip(shown, found.rows, strict=True)]
        columns.append("what the model wrote")
    table("", columns, shown, free=columns[1:])
    if found.count > len(found.rows):
        tell(
            f"The newest {len(found.rows)} of {found.count:,} are shown; --limit shows more; --json shows all of them in full."
        )
    if passing := [reason.reason for reason in found.reasons if reason.may_pass]:
        tell(f"Trying again may help for {', '.join(passing)}: batchinfer run {job} --retry-failed")


@click.command("runs")
@job_argument
@json_option
def runs_(job: str, as_json: bool) -> None:
    """The history of runs, newest first."""
    from batchinfer.pipeline.history import runs
    from batchinfer.pipeline.ledger import read_ledger

    data = served_data(job)
    found = runs(data)
    ledger = read_ledger(data)
    served = [ledger.served(run) for run in found]
    reports = [
        run.to_json() | ({} if each is None else {"served": each.to_json()})
        for run, each in zip(found, served, strict=True)
    ]
    emit(reports, as_json, lambda: _print_runs(reports, ledger))


def _status(report: Mapping[str, Any]) -> str:
    """How a run ended, with what it was for, if it was no run of the list."""
    status, purpose = report["status"], report.get("purpose")
    return f"{status} ({purpose})" if purpose else str(status)


def _print_runs(reports: Sequence[Mapping[str, Any]], ledger: Ledger) -> None:
    """A line for each run, then what all cost. A count that no run has, such as of failed rows, has no column."""
    from batchinfer.cli.costs import run_costs, tell_ledger
    from batchinfer.cli.progress import duration, saving
    from batchinfer.pipeline.report import figure

    rows = [
        {
            "run": report["run_id"], "started": f"{report['started_at'][:16].replace('T', ' ')} UTC", "status": _status(report),
            "rows": report.get("rows"), "cached": figure(report, "cached"), "generated": report.get("generated"),
            "failed": figure(report, "failed") or None, "remaining": figure(report, "remaining") or None, "version": report.get("version"),
            "rows/s": report.get("rows_per_second") and f"{report['rows_per_second']:.1f}",
            "saved": saving(report.get("prefix_saving")),
            "time": duration(report["seconds"]) if report.get("seconds") is not None else None,
            "estimated": duration(report["estimate"]["seconds"]) if report.get("estimate") and report["status"] in WHOLE else None,
            **run_costs(report),
        }
        for report in reports
    ]  # fmt: skip
    columns = [name for name in (rows[0] if rows else {}) if any(row[name] is not None for row in rows)]
    right = [name for name in columns if name not in ("started (UTC)", "status")]
    table("", columns, [[row[name] for name in columns] for row in rows], right=right)
    tell_ledger(ledger)
