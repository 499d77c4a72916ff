"""audit: how well each group of rows is served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from batchinfer.cli.notices import model_note
from batchinfer.cli.opening import open_job
from batchinfer.cli.options import job_argument, json_option
from batchinfer.cli.tables import cell, table
from batchinfer.cli.terminal import emit, tell

if TYPE_CHECKING:
    from batchinfer.evaluate.audit import AuditReport

WIDEST = 200  # characters of what was found


def _version(_ctx: click.Context, _option: click.Parameter, text: str | None) -> int | str | None:
    """A version's number, or a candidate's name."""
    from batchinfer.versions.layout import CANDIDATE

    if text is None or CANDIDATE.fullmatch(text):
        return text
    if text.isascii() and text.isdigit() and int(text):
        return int(text)
    raise click.BadParameter(f"{text} is neither a version such as 3 nor a candidate such as r7.")


@click.command("audit")
@job_argument
@click.option(
    "--version",
    callback=_version,
    metavar="N",
    help="Audit this version, or a refused candidate such as r7, not the served one.",
)
@json_option
def audit_(job: str, version: int | str | None, as_json: bool) -> None:
    """How well each group of rows is served, by the section audit: slices of the list, exchanged terms, sentences with terms.

    Rows with exchanged terms, and sentences, are asked through the job's cache. Writes audit.json and card.md beside the
    job's versions. Exits with 0 whatever it finds; what refuses a version is gate.audit.
    """
    from batchinfer.cli.progress import ProgressConsole
    from batchinfer.evaluate.audit import audit

    opened, data = open_job(job)
    if opened.spec.audit.asks:
        from batchinfer.cli.evaluate import need_scipy

        need_scipy()
    model_note(opened, as_json=as_json)
    with ProgressConsole() as console:
        report = audit(opened, data, version, console)
    emit(report.to_json(), as_json, lambda: _print_audit(report))


def _print_audit(report: AuditReport) -> None:
    from batchinfer.evaluate.card import WHOLE, cells

    what = "candidate" if isinstance(report.version, str) else "version"
    title = f"Audit of {report.job}, {what} {report.version}"
    columns = ["group", "rows", "coverage", "failures", "accuracy", "tokens", "verdict"]
    if report.slices:
        rows = [
            [cell(each.name), *cells(each.figures, each.tokens_ratio), each.verdict.value] for each in report.slices
        ]
        rows.append([WHOLE, *cells(report.whole, 1.0 if report.whole.tokens else None), ""])
        free = [name for name in columns if name not in ("rows", "tokens")]
        table(title, columns, rows, right=columns[1:6], free=free)
    for each in report.slices:
        if each.why:
            tell(f"{cell(each.name)}: {'; '.join(each.why)}.")
    asked = [
        [cell(group.name), f"{group.rows:,}", cell(group.message, WIDEST), group.verdict.value]
        for group in report.asked
    ]
    if asked:
        table(
            "" if report.slices else title,
            ["terms", "rows", "found", "verdict"],
            asked,
            right=["rows"],
            free=["terms", "found", "verdict"],
        )
    tell(f"{report.verdict.value.capitalize()}. The card for people: {report.folder / 'card.md'}")
