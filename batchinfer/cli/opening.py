"""The data folder and the job that a command was given."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchinfer.cli.options import DATE
from batchinfer.core.home import JobData, data_folder, job_names, require_folder
from batchinfer.core.keys import JOB_NAME
from batchinfer.errors import NotFound, UsageError, did_you_mean

if TYPE_CHECKING:
    from batchinfer.job.reader import Job


def open_job(name: str) -> tuple[Job, JobData]:
    """The job of that name or path, or the one that the data folder knows by that name; and its part of the data folder."""
    from batchinfer.job import reader

    try:
        job = reader.load(name, os.environ)
    except reader.NoJobFile:
        known = _known_job(name)
        if known is None:
            raise
        job = known
    return at_date(job), JobData(data_dir(), job.name)


def at_date(job: Job) -> Job:
    """The job with the list of the date that the command was given."""
    context = click.get_current_context()
    day = context.meta.get(DATE)
    if day is None:
        return job
    if context.params.get("input_path") is not None:
        raise UsageError("--input names a list, and --date chooses one of the job's: give one of the two.")
    return job.at_date(day)


def _known_job(name: str) -> Job | None:
    """The job whose file the data folder has noted under this name, if it still is there, and has that name."""
    from batchinfer.job import reader

    bound = JobData(data_dir(), name).record().job_file if re.fullmatch(JOB_NAME, name) else None
    if bound is None or not Path(bound).is_file():
        return None
    job = reader.load(bound, os.environ)
    return job if job.name == name else None


def served_data(name: str) -> JobData:
    """The data of a job by its name, or by its job file; a served version needs no job file.

    Raises NotFound where the data folder has nothing of the job.
    """
    data = JobData(data_dir(), name)
    if not (re.fullmatch(JOB_NAME, name) and data.is_known):
        from batchinfer.job import reader  # which takes as long as all else that a look-up loads

        try:
            data = JobData(data.root, reader.load(name, os.environ).name)
        except reader.NoJobFile as exc:
            if re.fullmatch(JOB_NAME, name):
                require_folder(data.root)
                raise _no_job(name, data.root) from exc
            raise
    data.require()
    return data


def _no_job(name: str, root: Path) -> NotFound:
    """The error for a job that neither the data folder nor ./jobs has."""
    known = job_names(root)
    there = f"the data folder has {', '.join(known)}." if known else "the data folder has no jobs."
    return NotFound(
        f"There is no job {name}, neither in the data folder {root} nor as jobs/{name}/job.yaml",
        fix=did_you_mean(name, known) or there,
    )


def data_dir() -> Path:
    """The data folder that the command was given."""
    return data_folder(click.get_current_context().find_root().obj, os.environ)
