"""The process that looks after alerts beside `schedule run`. It tells only those whom the job files name.

python -m batchinfer.schedule.alerting DATA [JOB]...

Whoever can write to the data folder could put others there, programs to be started among them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from batchinfer.alerts.watcher import AlertWatcher, look_until_closed, print_line
from batchinfer.pipeline.attempt import alert_rules
from batchinfer.schedule.entries import JobFiles


def start_alerting(root: Path, jobs: Sequence[str]) -> subprocess.Popen[bytes]:
    """Starts the process, which ends when its stdin is closed. jobs: as they were named; none: all below ./jobs."""
    command = [sys.executable, "-m", "batchinfer.schedule.alerting", str(root), *jobs]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)


def named_receivers(files: JobFiles) -> frozenset[str]:
    """What stands for the receivers that job files name now, as far as they can be read."""
    return frozenset(rule.key for entry in files() for rule in alert_rules(entry.job))


def main(arguments: Sequence[str] | None = None) -> None:
    """Looks every few seconds, until stdin closes."""
    root, *jobs = sys.argv[1:] if arguments is None else arguments
    files = JobFiles(jobs, lambda _: None)  # the scheduler says what is wrong with one
    look_until_closed(AlertWatcher(Path(root), print_line, trusted=partial(named_receivers, files)))


if __name__ == "__main__":
    main()
