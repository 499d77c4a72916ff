"""The process that looks after alerts beside `schedule run`. It tells only those whom the job files name.

python -m batchinfer.schedule.alerting DATA [JOB]...

Whoever can write to the data folder could put others there, programs to be started among them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from batchinfer.alerts.watcher import AlertWatcher, look_until_closed, print_line
from batchinfer.core.own_process import command_of
from batchinfer.pipeline.attempt import alert_rules
from batchinfer.schedule.entries import JobFiles


def start_alerting(root: Path, jobs: Sequence[str]) -> subprocess.Popen[bytes]:
    """Starts the process, which ends when its stdin is closed. jobs: as they were named; none: all below ./jobs."""
    command = command_of("batchinfer.schedule.alerting", str(root), *jobs)
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)


class NamedReceivers:
    """What stands for the receivers that job files name; of a file that is wrong by now, those that it named when it was read last."""

    def __init__(self, files: JobFiles) -> None:
        self._files = files
        self._known: dict[Path, frozenset[str]] = {}

    def __call__(self) -> frozenset[str]:
        found = {entry.job.path: frozenset(rule.key for rule in alert_rules(entry.job)) for entry in self._files()}
        wrong = {path: keys for path, keys in self._known.items() if path not in found and self._files.is_wrong(path)}
        self._known = wrong | found
        return frozenset().union(*self._known.values())


def main(arguments: Sequence[str] | None = None) -> None:
    """Looks every few seconds, until stdin closes."""
    root, *jobs = sys.argv[1:] if arguments is None else arguments
    files = JobFiles(jobs, lambda _: None)  # the scheduler says what is wrong with one
    look_until_closed(AlertWatcher(Path(root), print_line, trusted=NamedReceivers(files)))


if __name__ == "__main__":
    main()
