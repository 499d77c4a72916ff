"""Lines of a crontab."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from batchinfer.errors import UsageError
from batchinfer.schedule.agenda import ScheduledJob
from batchinfer.schedule.place import Target, UnitFile, plain_line

KIND = "cron"
HEAD = """\
# Runs batchinfer's jobs: add these lines by `crontab -e`. CRON_TZ is the time zone of the lines below it. Debian's and
# Ubuntu's cron does not know it: there the times are those of the system's time zone.
"""


def crontab_files(entries: Sequence[ScheduledJob], target: Target) -> list[UnitFile]:
    """One file. Raises UsageError."""
    lines, zone = [HEAD], None
    for entry in entries:
        if entry.schedule.timezone != zone:
            zone = entry.schedule.timezone
            lines.append(f"CRON_TZ={zone}\n")
        lines.append(f"{plain_line(entry, KIND)} {_command(entry, target)}\n")
    return [UnitFile("batchinfer.crontab", "".join(lines))]


def _command(entry: ScheduledJob, target: Target) -> str:
    """For the shell, with each % escaped: cron would begin the command's input there."""
    run = shlex.join(["env", *target.environment(entry), *target.command(entry)])
    command = f"cd {shlex.quote(str(target.folder))} && {run}"
    if "\n" in command:
        raise UsageError(f"{entry.job.path}: a path has a line break in it, and a line of a crontab cannot: rename it.")
    return command.replace("%", "\\%")
