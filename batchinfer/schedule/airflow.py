"""DAGs for Airflow, as one Python file: a job and what chains on it are one DAG where their times are the same."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from batchinfer.schedule.agenda import ScheduledJob
from batchinfer.schedule.place import Target, UnitFile, plain_line

KIND = "airflow"
HEAD = '''\
"""Runs batchinfer's jobs at their times. Written by `batchinfer schedule export airflow`."""

from datetime import datetime

from airflow import DAG
from airflow.timetables.trigger import CronTriggerTimetable

try:
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:  # Airflow 2
    from airflow.operators.bash import BashOperator
'''
DAG = """
with DAG(
    {dag!r},
    description={words!r},
    schedule=CronTriggerTimetable({cron!r}, timezone={zone!r}),
    start_date=datetime(2024, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["batchinfer"],
):
    tasks = {{}}
"""
TASK = """\
    tasks[{name!r}] = BashOperator(
        task_id={name!r},
        bash_command={command!r},
        env={environment!r},
        append_env=True,
    )
"""
STOPPED = "|| [ $? -eq 4 ]"  # after max_hours: the next run goes on from there


def airflow_files(entries: Sequence[ScheduledJob], target: Target) -> list[UnitFile]:
    """One file. Raises UsageError."""
    by_name = {entry.name: entry for entry in entries}
    groups: dict[str, list[ScheduledJob]] = {}
    for entry in entries:
        groups.setdefault(_first(entry, by_name).name, []).append(entry)
    dags = [_dag(name, members, target) for name, members in groups.items()]
    return [UnitFile("batchinfer_dags.py", HEAD + "".join(f"\n{dag}" for dag in dags))]


def _first(entry: ScheduledJob, by_name: dict[str, ScheduledJob]) -> ScheduledJob:
    """The job that a chain of jobs with the same times begins with."""
    seen = {entry.name}
    while (above := _above(entry, by_name)) is not None and above.name not in seen:
        seen.add(above.name)
        entry = above
    return entry


def _above(entry: ScheduledJob, by_name: dict[str, ScheduledJob]) -> ScheduledJob | None:
    """What a job chains on, if that is exported, too, and has the same times."""
    above = None if entry.upstream is None else by_name.get(entry.upstream)
    if above is None or (above.schedule.cron, above.schedule.timezone) != (
        entry.schedule.cron,
        entry.schedule.timezone,
    ):
        return None
    return above


def _dag(name: str, members: Sequence[ScheduledJob], target: Target) -> str:
    schedule, inner = members[0].schedule, {entry.name: entry for entry in members}
    head = DAG.format(
        dag=f"batchinfer_{name}", words=schedule.words, cron=plain_line(members[0], KIND), zone=schedule.timezone
    )
    tasks = [
        TASK.format(name=entry.name, command=_command(entry, target), environment=_environment(entry, target))
        for entry in members
    ]
    chained = [(above.name, entry.name) for entry in members if (above := _above(entry, inner)) is not None]
    return "".join([head, *tasks, *(f"    tasks[{above!r}] >> tasks[{below!r}]\n" for above, below in chained)])


def _command(entry: ScheduledJob, target: Target) -> str:
    return _plain(f"cd {shlex.quote(str(target.folder))} && {shlex.join(target.command(entry))} {STOPPED}")


def _environment(entry: ScheduledJob, target: Target) -> dict[str, str]:
    pairs = (each.partition("=") for each in target.environment(entry))
    return {name: _plain(value) for name, _, value in pairs}


def _plain(text: str) -> str:
    """Airflow takes it for a Jinja template: nothing of a path is."""
    return f"{{% raw %}}{text}{{% endraw %}}" if "{" in text else text
