"""jobs, forget, repair, prune, doctor: the commands that care for an installation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchinfer.cli.opening import at_date, data_dir, open_job, served_data
from batchinfer.cli.options import input_option, job_argument, json_option, pairs, yes_option
from batchinfer.cli.tables import table
from batchinfer.cli.terminal import Terminal, emit, tell
from batchinfer.cli.usage import Group
from batchinfer.core.columns import query_text
from batchinfer.core.person import ask
from batchinfer.core.sizes import size_text
from batchinfer.errors import UsageError, counted
from batchinfer.job.reader import Job

if TYPE_CHECKING:
    from batchinfer.maintenance.erase import ErasureReport
    from batchinfer.maintenance.repair import RepairedTable, RepairReport
    from batchinfer.pipeline.prune import PruneReport


@click.command("forget")
@job_argument
@click.argument("pair", nargs=-1, required=True, metavar="COLUMN=VALUE...")
@input_option
@yes_option
@json_option
def forget_(job: str, pair: tuple[str, ...], input_path: Path | None, yes: bool, as_json: bool) -> None:
    """Erase one entry, everywhere: from the cache, all versions and candidates, recorded misses, evaluations, logs.

    What is served becomes a new version without it. Other versions and candidates keep their numbers and their other
    entries. Exits with 6 if nothing of it is stored.
    """
    from batchinfer.maintenance.erase import erase_entry

    texts = pairs(pair)
    report = erase_entry(_job_file(job), served_data(job), texts, input_path, Terminal(), yes=yes)
    emit(report.to_json(), as_json, lambda: tell(_erased(report, query_text(texts))))


def _job_file(name: str) -> Job | None:
    """The job's file, if this machine has it: a data folder that versions are copied to needs none."""
    from batchinfer.job import reader

    try:
        reader.find(name)
    except UsageError:
        return None
    return at_date(reader.load(name, os.environ))


def _erased(report: ErasureReport, named: str) -> str:
    """What an erasure came to, as sentences."""
    rows = report.rows
    counts = ", ".join([
        counted(rows.generations, "generation"), counted(rows.imports, "import"), counted(rows.failures, "failure"),
        f"{report.misses:,} {'miss' if report.misses == 1 else 'misses'}",
        *([counted(report.evals, "row of evaluations", "rows of evaluations")] if report.evals else []),
        *([f"{counted(report.exchanged, 'answer')} to rows with exchanged terms"] if report.exchanged else []),
    ])  # fmt: skip
    said = [f"Erased {named}: removed {counts}"]
    if report.versions.rewritten:
        said.append(f"wrote {_versions(report.versions.rewritten)} again without it")
    if report.versions.rebuilt:
        said.append(f"replaced {_versions(report.versions.removed)} by {_versions(report.versions.rebuilt)}")
    return " ".join([f"{'; '.join(said)}.", *report.remarks])


def _versions(names: Sequence[int | str]) -> str:
    return f"version{'' if len(names) == 1 else 's'} {', '.join(map(str, names))}"


@click.group("jobs", cls=Group, invoke_without_command=True)
@json_option
@click.pass_context
def jobs_(ctx: click.Context, as_json: bool) -> None:
    """The jobs of the data folder: what is served of each, and the size of all its files."""
    from batchinfer.maintenance.jobs import known_jobs

    if ctx.invoked_subcommand is not None:
        return
    jobs = known_jobs(data_dir())
    columns = ["job", "version", "entries", "size", "job file"]
    rows = [
        [
            job.job,
            job.version,
            None if job.entries is None else f"{job.entries:,}",
            size_text(job.bytes),
            job.job_file,
        ]
        for job in jobs
    ]
    emit([job.to_json() for job in jobs], as_json, lambda: table("", columns, rows, right=columns[1:4]))


@jobs_.command("remove", short_help="Remove a job from the data folder.")
@job_argument
@yes_option
@json_option
@click.pass_context
def remove_(ctx: click.Context, job: str, yes: bool, as_json: bool) -> None:
    """Remove a job from the data folder: its cache, versions, misses and logs. Its job file stays.

    A running service stops serving it.
    """
    from batchinfer.maintenance.jobs import known_job, remove_job

    data = served_data(job)
    found = known_job(data)
    served = "" if found.version is None else f", with version {found.version}, which is served"
    size = f"{size_text(found.bytes)}{served}"
    said = f"This removes the job {data.name} from {data.root} ({size}), and cannot be undone."
    ask(Terminal(), said, "pass --yes to remove it.", yes=yes)
    removed = remove_job(data)
    said = f"Removed the job {removed.job} from {data.root}: {size_text(removed.bytes)}."
    before = ctx.parent is not None and ctx.parent.params["as_json"]  # jobs --json remove JOB
    emit(removed.to_json(), as_json or before, lambda: tell(said))


@click.command("repair")
@job_argument
@yes_option
@json_option
def repair_(job: str, yes: bool, as_json: bool) -> None:
    """Make a new cache of what can be read of a damaged one, and of what versions hold.

    The damaged file is kept beside it under another name. What is served is not touched. A cache that is whole is left as
    it is.
    """
    from batchinfer.maintenance.repair import repair

    report = repair(served_data(job), Terminal(), yes=yes)
    emit(report.to_json(), as_json, lambda: _tell_repair(report))


def _tell_repair(report: RepairReport) -> None:
    if report.tables is None:
        tell(f"The cache of {report.job} is whole: there is nothing to repair.")
        return
    columns = ["", "from the cache", "from versions", "lost"]
    rows = [[name, *_repaired(found)] for name, found in report.tables.items()]
    table(f"The new cache of {report.job}", columns, rows, right=columns[1:])
    for remark in report.remarks:
        tell(remark)
    if report.kept is not None:
        tell(f"The damaged file is kept as {report.kept}: remove it once you no longer need it.")
    tell("The next run makes what is missing.")


def _repaired(found: RepairedTable) -> list[str]:
    return [f"{found.cache:,}", f"{found.versions:,}", "unknown" if found.lost is None else f"{found.lost:,}"]


@click.command("prune")
@job_argument
@input_option
@click.option("--dry-run", is_flag=True, help="Say how much it is, and remove nothing.")
@yes_option
@json_option
def prune_(job: str, input_path: Path | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove answers from the cache that nothing uses any more, and give their disk space back.

    What the job file asks now of its list stays, and so does every answer that a version or a candidate holds, and all that
    people gave. It says first how much would go.
    """
    from batchinfer.pipeline.prune import prune

    opened, data = open_job(job)
    report = prune(opened, data, Terminal(), instead=input_path, dry_run=dry_run, yes=yes)
    emit(report.to_json(), as_json, lambda: tell(_pruned(report)))


def _pruned(report: PruneReport) -> str:
    """What a removal came to, as a sentence."""
    if not report.rows:
        return f"The cache of {report.job} holds nothing unused."
    done = "Removed" if report.removed else "It would remove"
    stay = counted(report.left, "answer stays", "answers stay")
    return f"{done} {report.rows} of the cache of {report.job}, {size_text(report.bytes)}; {stay}."


@click.command("doctor")
@click.argument("job", required=False)
@click.option("--deep", is_flag=True, help="Read all of the job's cache and versions, and say what is damaged.")
@json_option
def doctor_(job: str | None, deep: bool, as_json: bool) -> None:
    """What this machine and data folder can do, and what is missing. Exits with 1 if something is."""
    from batchinfer.maintenance import deep as deep_checks
    from batchinfer.maintenance import doctor

    if deep and job is None:
        raise UsageError("--deep reads the cache and versions of one job: name it.")

    opened, data = (None, None) if job is None else open_job(job)
    findings = list(doctor.machine(data_dir(), opened.spec.engine if opened else None))
    if opened is not None and data is not None:
        findings += doctor.job(opened, data)
        findings += deep_checks.read_all(data) if deep else ()

    def text() -> None:
        for finding in findings:
            click.secho("ok      " if finding.ok else "missing ", fg="green" if finding.ok else "red", nl=False)
            click.echo(f"{finding.what}: {finding.detail}" + (f" -> {finding.fix}" if finding.fix else ""))

    emit([finding.to_json() for finding in findings], as_json, text)
    if not all(finding.ok for finding in findings):
        click.get_current_context().exit(1)
