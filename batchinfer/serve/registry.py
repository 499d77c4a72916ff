"""Every job under the data folder, as one worker serves it: noticed when it appears, and kept up to date."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from batchinfer.core.home import JobData, job_names
from batchinfer.serve.served_job import JobStatus, ServedJob

log = logging.getLogger("batchinfer.serve")


class JobRegistry:
    """The jobs of a data folder. `refresh` is called by one thread; the rest may be called by another.

    jobs: by name; replaced as a whole, and a job is never removed.
    listed: whether it is known which jobs there are; before that no job is unknown.
    """

    def __init__(self, root: Path, on_new_job: Callable[[ServedJob], None], *, records_misses: bool) -> None:
        """on_new_job: called for each new job, before anyone can ask for it."""
        self.jobs: dict[str, ServedJob] = {}
        self.listed = False
        self._root = root
        self._on_new_job = on_new_job
        self._records_misses = records_misses
        self._problem: str | None = None

    def refresh(self) -> None:
        """Looks for new jobs and new versions. A data folder that cannot be read takes nothing away."""
        names = self._names()
        for name in names or ():
            if name not in self.jobs:
                job = ServedJob(JobData(self._root, name), records_misses=self._records_misses)
                self._on_new_job(job)
                self.jobs = self.jobs | {name: job}
        self.listed = self.listed or names is not None
        for job in self.jobs.values():
            try:
                job.refresh()
            except Exception:  # one job must not keep the others from being refreshed
                log.exception("%s: could not be refreshed", job.name)

    def _names(self) -> list[str] | None:
        """The jobs that there are, or None where the data folder cannot be read."""
        names, problem = None, None
        try:
            names = job_names(self._root)
        except OSError as exc:
            problem = exc.strerror
        if problem != self._problem:
            log.error(
                "The data folder %s %s", self._root, f"cannot be read: {problem}." if problem else "is there again."
            )
        self._problem = problem
        return names

    def statuses(self) -> list[JobStatus]:
        """Of all jobs, by name."""
        return [job.status() for _, job in sorted(self.jobs.items())]

    @property
    def ready(self) -> bool:
        """Whether each job that has a published version has one open."""
        return self.listed and not any(job.is_awaited for job in self.jobs.values())
