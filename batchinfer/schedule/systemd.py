"""A service and a timer for each job, for systemd."""

from __future__ import annotations

from collections.abc import Sequence

from batchinfer.schedule.agenda import ScheduledJob
from batchinfer.schedule.place import PlainFields, Target, UnitFile, plain_fields

KIND = "systemd"
WEEKDAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
ALL_WEEKDAYS, ALL_DAYS, ALL_MONTHS, ALL_HOURS, ALL_MINUTES = 7, 31, 12, 24, 60

SERVICE = """\
[Unit]
Description=batchinfer run {name}
{after}
[Service]
Type=oneshot
WorkingDirectory={folder}
{environment}
ExecStart={command}
# Stopped after max_hours: the next run goes on from there.
SuccessExitStatus=4
# The run alone is told to stop: its engine finishes what is in flight.
KillMode=mixed
TimeoutStopSec=60
"""
TIMER = """\
[Unit]
Description=Runs {unit}.service: {words}

[Timer]
{times}
# A time that passed while the machine was off is made up for once.
Persistent=true

[Install]
WantedBy=timers.target
"""


def systemd_files(entries: Sequence[ScheduledJob], target: Target) -> list[UnitFile]:
    """Raises UsageError."""
    names = {entry.name for entry in entries}
    found = []
    for entry in entries:
        upstream = entry.upstream if entry.upstream in names else None
        unit = _unit(entry.name)
        service = SERVICE.format(
            name=entry.name,
            after=f"After={_unit(upstream)}.service\n" if upstream else "",
            folder=_escaped(str(target.folder)),
            environment="\n".join(f"Environment={_quoted(each)}" for each in target.environment(entry)),
            command=" ".join(_quoted(word).replace("$", "$$") for word in target.command(entry)),
        )
        times = "\n".join(f"OnCalendar={time}" for time in calendar(entry))
        found.append(UnitFile(f"{unit}.service", service))
        found.append(UnitFile(f"{unit}.timer", TIMER.format(unit=unit, words=entry.schedule.words, times=times)))
    return found


def calendar(entry: ScheduledJob) -> list[str]:
    """Calendar events that together are a cron line: two, where the day of the month or the day of the week is enough."""
    fields, zone = plain_fields(entry, KIND), entry.schedule.timezone
    week = ",".join(WEEKDAYS[day] for day in fields.weekdays)
    any_weekday = len(fields.weekdays) == ALL_WEEKDAYS
    clock = f"{_list(fields.hours, ALL_HOURS)}:{_list(fields.minutes, ALL_MINUTES)}:00 {zone}"
    if fields.both_days:
        return [f"{'' if any_weekday else f'{week} '}{_date(fields, fields.days)} {clock}"]
    every_day = tuple(range(1, ALL_DAYS + 1))
    return [f"{_date(fields, fields.days)} {clock}", f"{week} {_date(fields, every_day)} {clock}"]


def _date(fields: PlainFields, days: tuple[int, ...]) -> str:
    return f"*-{_list(fields.months, ALL_MONTHS)}-{_list(days, ALL_DAYS)}"


def _list(values: tuple[int, ...], count: int) -> str:
    return "*" if len(values) == count else ",".join(f"{value:02d}" for value in values)


def _unit(name: str) -> str:
    return f"batchinfer-{name}"


def _escaped(text: str) -> str:
    """Without what systemd would put something else for."""
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """One word, whatever is in it."""
    inner = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{_escaped(inner)}"'
