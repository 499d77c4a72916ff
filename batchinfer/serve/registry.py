"""Every job under the data folder, as one worker serves it: noticed when it appears, and kept up to date."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from batchinfer.core.faults import LastingFaults
from batchinfer.core.home import JobData, job_names
from batchinfer.serve.served_job import JobState, JobStatus, ServedJob

log = logging.getLogger("batchinfer.serve")


class JobRegistry:
    """The jobs of a data folder. `refresh` is called by one thread; the rest may be called by another.

    jobs: by name; replaced as a whole. A job goes when it was removed on purpose, or vanished before it had a version;
        a folder that vanished in another way may come back, and what is open goes on being served.
    listed: whether it is known which jobs there are; before that no job is unknown.
    """

    def __init__(
        self,
        root: Path,
        on_new_job: Callable[[ServedJob], None],
        on_removed_job: Callable[[ServedJob], None] = lambda _: None,
        *,
        records_misses: bool,
        openings: Path | None = None,
    ) -> None:
        """on_new_job: called for each new job, before anyone can ask for it. on_removed_job: once nobody can any more.

        openings: a folder that the workers share, for word of versions that end them.
        """
        self.jobs: dict[str, ServedJob] = {}
        self.listed = False
        self._root = root
        self._on_new_job, self._on_removed_job = on_new_job, on_removed_job
        self._records_misses, self._openings = records_misses, openings
        self._problem: str | None = None
        self._faults = dict[str, LastingFaults]()  # by the name of the job

    def refresh(self) -> None:
        """Looks for new jobs and new versions. A data folder that cannot be read takes nothing away."""
        names = self._names()
        for name in names or ():
            if name not in self.jobs:
                data = JobData(self._root, name)
                job = ServedJob(data, records_misses=self._records_misses, openings=self._openings)
                self._on_new_job(job)
                self.jobs = self.jobs | {name: job}
        if names is not None:
            self._drop([job for name, job in self.jobs.items() if name not in names and _is_gone(job)])
        self.listed = self.listed or names is not None
        for job in self.jobs.values():
            faults = self._faults.setdefault(
                job.name, LastingFaults(log, f"The job {job.name} could not be brought up to date")
            )
            try:
                job.refresh()
                faults.over()
            except Exception as exc:  # noqa: BLE001 - one job must not keep the others from being refreshed
                faults.note(exc)

    def _drop(self, gone: list[ServedJob]) -> None:
        for job in gone:
            self.jobs = {name: kept for name, kept in self.jobs.items() if kept is not job}
            self._faults.pop(job.name, None)
            self._on_removed_job(job)
            log.info("%s: the job was removed from the data folder and is not served any more", job.name)

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
    def degraded(self) -> int:
        """How many jobs are served otherwise than they should be."""
        return sum(job.situation.state is JobState.DEGRADED for job in self.jobs.values())

    @property
    def ready(self) -> bool:
        """Whether each job that has a published version has one open."""
        return self.listed and not any(job.is_awaited for job in self.jobs.values())


def _is_gone(job: ServedJob) -> bool:
    """Whether a job that the data folder does not list is not to come back."""
    return job.data.is_removed or (job.situation.opened is None and not job.data.folder.exists())
