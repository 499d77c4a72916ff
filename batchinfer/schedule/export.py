"""Writes what another scheduler needs to run the jobs: units, lines, manifests or DAGs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from batchinfer.core.files import os_errors, write_atomically
from batchinfer.schedule.agenda import ScheduledJob
from batchinfer.schedule.airflow import airflow_files
from batchinfer.schedule.crontab import crontab_files
from batchinfer.schedule.kubernetes import kubernetes_files
from batchinfer.schedule.place import Target, UnitFile
from batchinfer.schedule.systemd import systemd_files

KINDS: Mapping[str, Callable[[Sequence[ScheduledJob], Target], list[UnitFile]]] = {
    "systemd": systemd_files,
    "cron": crontab_files,
    "kubernetes": kubernetes_files,
    "airflow": airflow_files,
}


def exported(kind: str, entries: Sequence[ScheduledJob], target: Target) -> list[UnitFile]:
    """The files for a kind of scheduler, of KINDS. Raises UsageError for a cron line that it does not understand."""
    return KINDS[kind](entries, target)


def write_files(files: Sequence[UnitFile], folder: Path) -> list[Path]:
    """Their paths. Files of the same names are replaced. Raises StoreError."""
    paths = [folder / file.name for file in files]
    with os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for file, path in zip(files, paths, strict=True):
            write_atomically(path, file.content.encode())
    return paths
