"""schedule: runs of jobs at their times, and units for other schedulers."""

from __future__ import annotations

import contextlib
import json
import signal
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

from batchinfer.cli.opening import data_dir
from batchinfer.cli.options import json_option
from batchinfer.cli.tables import table
from batchinfer.cli.terminal import emit, tell
from batchinfer.cli.usage import Group
from batchinfer.cli.values import Integer, OneOf, PathValue
from batchinfer.core.clock import iso
from batchinfer.errors import StoreError, counted

jobs_argument = click.argument("jobs", nargs=-1, metavar="[JOB]...")
KINDS = ("systemd", "cron", "kubernetes", "airflow")


@click.group("schedule", cls=Group, invoke_without_command=True)
@click.pass_context
def schedule_(ctx: click.Context) -> None:
    """Run jobs at the times that their section schedule names, here or by another scheduler.

    Without JOB, all jobs below ./jobs that have such a section are meant.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@schedule_.command("run", short_help="Run jobs when they are due.")
@jobs_argument
@click.option(
    "--at-once",
    type=Integer(min=1),
    metavar="N",
    help="Jobs that may run at the same time.  [default: as many as the GPUs have room for; 1 without a GPU]",
)
@json_option
def schedule_run(jobs: tuple[str, ...], at_once: int | None, as_json: bool) -> None:
    """Run jobs when they are due, until Ctrl-C or SIGTERM, which ends what runs in order.

    Due times that passed while nothing was scheduled, or a job still ran, are made up for by one run. A run that needs
    an answer from a person fails and says so: nothing here says --yes. With --json each line is a JSON object.
    """
    from batchinfer.alerts.watcher import watching_alerts
    from batchinfer.engines.devices import find_gpus
    from batchinfer.schedule.agenda import Room
    from batchinfer.schedule.alerting import start_alerting
    from batchinfer.schedule.entries import JobFiles, named_entries
    from batchinfer.schedule.launch import ProcessLauncher
    from batchinfer.schedule.memory import Memory
    from batchinfer.schedule.scheduler import Scheduler, SystemClock

    def say(text: str) -> None:
        at = str(iso(datetime.now(UTC)))
        with contextlib.suppress(OSError):  # nobody reads it any more, or the disk is full: jobs are run all the same
            click.echo(json.dumps({"at": at, "message": text}, ensure_ascii=False) if as_json else f"{at} {text}")

    files, memory, clock = JobFiles(jobs, say), Memory(data_dir()), SystemClock()
    if jobs or not files():
        named_entries(jobs)  # what is wrong with what was named, or with all there is, is said at once
    with memory.scheduling(), watching_alerts(partial(start_alerting, data_dir(), jobs)):
        room = Room(at_once, len(find_gpus()))
        launcher = ProcessLauncher(data_dir(), memory, clock.wake)
        scheduler = Scheduler(files, launcher, memory, clock, say, room, partial(_note_failure, data_dir()))

        def on_signal(_number: int, _frame: object) -> None:
            scheduler.stop()
            clock.wake()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, on_signal)
        scheduler.run()
    say("Stopped. What was unfinished goes on when the scheduler starts again.")


def _note_failure(root: Path, job: str, began: datetime, said: str) -> None:
    """Notes that a run failed, where it could not do so itself: who looks after alerts tells it."""
    from batchinfer.alerts.attempts import note_failure
    from batchinfer.core.home import JobData

    with contextlib.suppress(StoreError):
        note_failure(JobData(root, job), began, said)


@schedule_.command("list")
@jobs_argument
@json_option
def schedule_list(jobs: tuple[str, ...], as_json: bool) -> None:
    """When each job ran last, and when it is due next."""
    from batchinfer.cli.times import time_in_zone
    from batchinfer.schedule.entries import named_entries
    from batchinfer.schedule.listing import ListedJob, listed_jobs
    from batchinfer.schedule.memory import Memory

    now = datetime.now(UTC)

    def cells(line: ListedJob) -> list[object]:
        failed = "" if line.exit_code in (None, 0) else f", exit code {line.exit_code}"
        return [
            line.job,
            line.words,
            time_in_zone(line.last, line.timezone, now) + failed,
            time_in_zone(line.next, line.timezone, now),
        ]

    lines = listed_jobs(named_entries(jobs), Memory(data_dir()).read(), now)
    emit(
        [line.to_json() for line in lines], as_json,
        lambda: table("", ["job", "when", "last run", "next"], [cells(line) for line in lines], free=["when", "last run", "next"]),
    )  # fmt: skip


@schedule_.command("export", short_help="Write what another scheduler needs.")
@click.argument("kind", type=OneOf(KINDS))
@jobs_argument
@click.option(
    "--to",
    "folder",
    type=PathValue(),
    metavar="FOLDER",
    help="Write the files there, instead of to standard output.",
)
@click.option("--image", metavar="NAME", help="For kubernetes: the container image that runs the job.")
@click.option("--claim", metavar="NAME", help="For kubernetes: the volume claim with the jobs and the data folder.")
@json_option
def schedule_export(
    kind: str, jobs: tuple[str, ...], folder: Path | None, image: str | None, claim: str | None, as_json: bool
) -> None:
    """Write systemd units, crontab lines, Kubernetes CronJobs or an Airflow DAG that run jobs at their times."""
    from batchinfer.schedule.entries import named_entries
    from batchinfer.schedule.export import exported, write_files
    from batchinfer.schedule.place import Target

    target = Target.here(data_dir(), image, claim)
    files = exported(kind, named_entries(jobs), target)
    paths = [] if folder is None else write_files(files, folder)

    def text() -> None:
        for file in files if folder is None else ():
            click.echo(file.content, nl=False)
        if folder is not None:
            tell(f"Wrote {counted(len(paths), 'file')} to {folder}.")

    emit(
        [{"file": file.name, "content": file.content} for file in files]
        if folder is None
        else [str(path) for path in paths],
        as_json,
        text,
    )
