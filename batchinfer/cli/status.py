"""status: whether all is well with each job."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime

import click

from batchinfer.cli.opening import data_dir, served_data
from batchinfer.cli.options import json_option
from batchinfer.cli.tables import table
from batchinfer.cli.terminal import emit, tell
from batchinfer.core.home import JobData
from batchinfer.core.keys import JOB_NAME
from batchinfer.errors import counted

COLOURS = {"ok": "green", "stale": "yellow", "failing": "red", "never run": "yellow"}


@click.command("status")
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@json_option
def status_(jobs: tuple[str, ...], as_json: bool) -> None:
    """One line for each job: what is served, its age, the last run and the next. Exits with 1 if not all is well.

    Without JOB, all jobs of the data folder are meant, and those below ./jobs that have a section schedule. It only looks, so
    it works on a copy of a data folder, too.
    """
    from batchinfer.alerts.health import Health
    from batchinfer.cli.times import long_ago, time_in_zone
    from batchinfer.schedule.overview import JobLine, overview

    now = datetime.now(UTC)
    lines = overview(data_dir(), [_named(job) for job in jobs], now)

    def cells(line: JobLine) -> list[object]:
        version = f"{line.version} (pinned)" if line.pinned else line.version
        return [
            line.job, line.health, version, None if line.age is None else long_ago(line.age),
            time_in_zone(line.last_run, line.timezone, now) + (f", {line.last_status}" if line.last_status else ""),
            time_in_zone(line.next_run, line.timezone, now) if line.timezone else None,
        ]  # fmt: skip

    def text() -> None:
        columns = ["job", "health", "version", "age", "last run", "next run"]
        table(
            "",
            columns,
            [cells(line) for line in lines],
            right=["version"],
            free=["last run", "next run"],
            colours=COLOURS,
        )
        for line in lines:
            _tell_problems(line.job, line.wrong, line.pending, line.undelivered)

    emit([line.to_json() for line in lines], as_json, text)
    if any(line.health is not Health.OK for line in lines):
        click.get_current_context().exit(1)


def _named(job: str) -> str:
    """The name of a job that the data folder has, or that has a job file. Raises NotFound."""
    from batchinfer.job import reader

    if re.fullmatch(JOB_NAME, job) and JobData(data_dir(), job).is_known:
        return job
    try:
        return reader.load(job, os.environ).name
    except reader.NoJobFile:
        return served_data(job).name  # which says that there is none


def _tell_problems(job: str, wrong: tuple[str, ...], pending: int, undelivered: tuple[str, ...]) -> None:
    """What is behind a line."""
    for sentence in wrong:
        tell(f"{job}: {sentence}")
    if pending:
        tell(f"{job}: {counted(pending, 'alert is', 'alerts are')} still to be told.")
    for sentence in undelivered:
        tell(f"{job}: {sentence}")
