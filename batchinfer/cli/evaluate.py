"""eval: which prompt is better."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from batchinfer.cli.notices import model_note
from batchinfer.cli.opening import open_job
from batchinfer.cli.options import job_argument, json_option
from batchinfer.cli.tables import table
from batchinfer.cli.terminal import emit, tell
from batchinfer.cli.values import Integer, PathValue
from batchinfer.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from batchinfer.core.home import JobData
    from batchinfer.evaluate.experiment import EvalOptions
    from batchinfer.evaluate.report import ArmReport, EvalReport
    from batchinfer.job.reader import Job

ALL = "all"


def need_scipy() -> None:
    """Raises MissingExtra."""
    try:
        import scipy  # noqa: F401
    except ImportError as exc:
        raise MissingExtra("SciPy", "eval") from exc


def _numbers(_ctx: click.Context, _option: click.Parameter, text: str | None) -> tuple[Any, ...]:
    """Numbers of shots, such as 0,2,all."""
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    if bad := [word for word in words if word != ALL and not (word.isascii() and word.isdigit())]:
        raise click.BadParameter(f"{bad[0]} is neither a number nor all; write them as 0,2,4,8.")
    return tuple(dict.fromkeys(word if word == ALL else int(word) for word in words))


def _priors(_ctx: click.Context, _option: click.Parameter, text: str | None) -> tuple[Any, ...]:
    """Values of output.prior, such as none,list."""
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    if bad := [word for word in words if word not in ("none", "list")]:
        raise click.BadParameter(f"{bad[0]} is neither none nor list; write them as none,list.")
    return tuple(dict.fromkeys(words))


@click.command("eval")
@job_argument
@click.option(
    "--shots", callback=_numbers, metavar="0,2,4", help="Arms with these numbers of examples; all takes every one."
)
@click.option(
    "--draws", type=Integer(min=1, max=100), default=1, metavar="N", help="Draws of examples, for each number."
)
@click.option("--model", "models", multiple=True, metavar="ID", help="A model beside the job's; may be repeated.")
@click.option(
    "--template",
    "templates",
    multiple=True,
    type=PathValue(),
    metavar="FILE",
    help="A template beside the job's; may be repeated.",
)
@click.option(
    "--system",
    "systems",
    multiple=True,
    type=PathValue(),
    metavar="FILE",
    help="A system text beside the job's; may be repeated.",
)
@click.option(
    "--prior",
    "priors",
    callback=_priors,
    metavar="none,list",
    help="Arms whose choices are read with and without output.prior.",
)
@click.option(
    "--baseline", metavar="ARM", help="The arm that others are compared with.  [default: the job file as it is]"
)
@click.option("--limit", type=Integer(min=2), metavar="N", help="Use only N golden rows.")
@click.option("--select", is_flag=True, help="Write the chosen arm into the job file, after showing what changes.")
@click.option(
    "--dry-run", is_flag=True, help="Say what would be asked, and which differences so many golden rows can show."
)
@json_option
def eval_(
    job: str, as_json: bool, select: bool, dry_run: bool, baseline: str | None, limit: int | None, **axes: Any
) -> None:
    """Compare prompts on rows whose right answers are known, and choose one.

    An arm is the job with a number of examples, another draw of them, template, system text, model or prior; each is combined
    with each. Arms are asked through the job's cache. One half of the golden rows is to choose an arm on, the other to report on.
    """
    need_scipy()
    from batchinfer.evaluate.arms import Axes
    from batchinfer.evaluate.experiment import EvalOptions

    if select and dry_run:
        raise UsageError("--select needs answers, and --dry-run asks for none: give one of the two.")
    opened, data = open_job(job)
    options = EvalOptions(Axes(**axes), baseline, limit)
    model_note(opened, as_json=as_json)
    report = _evaluated(opened, data, options, select=select, dry_run=dry_run)
    emit(report.to_json(), as_json, lambda: _print_report(report))


def _evaluated(job: Job, data: JobData, options: EvalOptions, *, select: bool, dry_run: bool) -> EvalReport:
    from dataclasses import replace

    from batchinfer.cli.progress import ProgressConsole
    from batchinfer.evaluate import prompts
    from batchinfer.evaluate.select import chosen_text
    from batchinfer.job.replaced import difference, write_job_file

    with ProgressConsole() as console:
        if dry_run:
            return prompts.dry_run(job, data, options, console)
        report, arm = prompts.compare_prompts(job, data, options, console)
    if not select:
        return report
    text = chosen_text(job, arm)
    if changed := difference(job, text):
        click.echo(changed, err=True)
        write_job_file(job, text)
    return replace(report, selected=bool(changed))


def _print_report(report: EvalReport) -> None:
    what = report.metric if report.positive is None else f"{report.metric} of {report.positive}"
    halves = f"{report.dev:,} golden rows to choose on, {report.test:,} to report on"
    if report.chosen is None:
        rows = [[arm.name, arm.model, f"{arm.cached:,}", f"{arm.to_generate:,}"] for arm in report.arms]
        table(
            f"{report.job}, {what}: {halves}",
            ["arm", "model", "cached", "to generate"],
            rows,
            right=["cached", "to generate"],
            free=["arm", "model"],
        )
        _print_power(report)
        return
    figure = f"{report.metric} (95 %)"
    columns = ["arm", figure, "wins", "losses", "p", "verdict", "ECE", "tokens", "s/row"]
    found = [_row(arm) for arm in report.arms]
    shown = [place for place in range(len(columns)) if any(row[place] is not None for row in found)]
    words = ["arm", figure, "verdict"]
    right = [name for name in columns if name not in words]
    picked = [[row[place] for place in shown] for row in found]
    table(f"{report.job}, {what}: {halves}", [columns[place] for place in shown], picked, right=right, free=words)
    _print_power(report)
    _print_chosen(report, what)


def _row(arm: ArmReport) -> list[str | None]:
    judged = arm.judged
    assert judged is not None
    figure, compared = judged.figure, judged.p is not None
    return [
        arm.name, f"{figure.value:.3f} ({figure.interval.low:.3f}-{figure.interval.high:.3f})",
        str(judged.wins) if compared else None, str(judged.losses) if compared else None,
        None if judged.p is None else f"{judged.p:.3f}", str(judged.verdict),
        None if arm.calibration is None else f"{arm.calibration.error:.2f}",
        None if arm.prompt_tokens is None else f"{arm.prompt_tokens + (arm.output_tokens or 0):,.0f}",
        None if arm.seconds_per_row is None else f"{arm.seconds_per_row:.3f}",
    ]  # fmt: skip


def _print_power(report: EvalReport) -> None:
    """Which difference so many rows can show."""
    if len(report.arms) == 1:
        return
    smallest = report.smallest_difference
    said = "no difference at all" if smallest is None else f"differences from {smallest:.3f}"
    tell(
        f"{report.dev:,} rows show {said} in 80 % of such comparisons, {report.assumption}, corrected for {len(report.arms)} arms; "
        f"a difference of 0.05 needs {report.rows_for_5_points:,} golden rows."
    )


def _print_reliability(report: EvalReport) -> None:
    """How often answers of the chosen arm are right, by their score."""
    from batchinfer.evaluate.plot import bar

    found = report.curves.get(report.chosen or "")
    if found is None:
        return
    rows = [[f"{each.score:.2f}", f"{each.right:.2f}", f"{each.rows:,}", bar(each)] for each in found.bins]
    title = f"{report.chosen} by score: the bar is the share right, ┃ the score"
    table(title, ["score", "right", "rows", ""], rows, right=["score", "right", "rows"])


def _print_chosen(report: EvalReport, what: str) -> None:
    tested, cut = report.tested, report.cut_off
    assert tested is not None
    better = report.chosen != report.baseline
    kept = "the best of those shown to be better" if better else "the baseline: no arm is shown to be better"
    tell(f"Chosen: {report.chosen}, {kept}." if len(report.arms) > 1 else f"The only arm: {report.chosen}.")
    for name, figure in {report.chosen: tested.chosen, report.baseline: tested.baseline}.items():
        low, high = figure.interval.low, figure.interval.high
        tell(f"On the {report.test:,} rows to report on, {name}: {what} {figure.value:.3f} ({low:.3f} to {high:.3f}).")
    if cut is not None:
        tell(
            f"Best cut-off of the score of {cut.choice} on the rows to choose on: {cut.score:.3f}; with it {cut.test:.1%} of the rows to "
            f"report on are right, with 0.5 {cut.test_at_half:.1%}."
        )
    _print_reliability(report)
    if report.selected:
        tell("The job file was changed to it.")
    tell(f"All of it is in evals/{report.number} of the job's data folder.")
