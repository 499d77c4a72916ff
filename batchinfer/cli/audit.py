"""audit: how well each group of rows is served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from batchinfer.cli.common import cell, dim, emit, job_argument, json_option, open_job, table, tell

if TYPE_CHECKING:
    from batchinfer.evaluate.audit import AuditReport


@click.command("audit")
@job_argument
@click.option(
    "--version", "version", type=click.IntRange(min=1), metavar="N", help="Audit this version, not the served one."
)
@json_option
def audit_(job: str, version: int | None, as_json: bool) -> None:
    """Coverage, failures, accuracy and tokens for each group of rows that audit.slices names, and whether they stand too far apart.

    Writes audit.json and card.md beside the job's versions. Ends with 0 whatever it finds: gate.audit refuses.
    """
    from batchinfer.evaluate.audit import audit

    opened, data = open_job(job)
    report = audit(opened, data, version, dim)
    emit(report.to_json(), as_json, lambda: _print_audit(report))


def _print_audit(report: AuditReport) -> None:
    from batchinfer.evaluate.card import cells

    columns = ["group", "rows", "coverage", "failures", "accuracy", "tokens", "verdict"]
    rows = [[cell(each.name), *cells(each), each.verdict.value] for each in report.slices]
    table(f"Audit of {report.job}, version {report.version}", columns, rows, right=columns[1:6])
    for each in report.slices:
        if each.why:
            tell(f"{cell(each.name)}: {'; '.join(each.why)}.")
    tell(f"{report.verdict.value.capitalize()}. The card for people: {report.folder / 'card.md'}")
