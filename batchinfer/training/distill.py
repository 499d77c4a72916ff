"""What a student of the answers that are cached now would be worth. The next version has that very student."""

from __future__ import annotations

from batchinfer.core.home import JobData
from batchinfer.core.records import Info
from batchinfer.errors import UsageError
from batchinfer.job.reader import Job
from batchinfer.planning.prepare import Options, prepare, quiet
from batchinfer.publish.candidate import Candidate
from batchinfer.publish.columns import check_student_text
from batchinfer.publish.embeddings import embeddings_of
from batchinfer.publish.golden import read_golden
from batchinfer.publish.sliced import check_slices
from batchinfer.publish.student import Pupil
from batchinfer.publish.student_report import StudentReport
from batchinfer.versions.calibration import ScoreSource
from batchinfer.versions.pointers import open_if_served


def distill(job: Job, data: JobData, options: Options, info: Info = quiet) -> StudentReport:
    """Learns as publishing does from what the cache and the served version have for the list, and writes nothing.

    Raises NotFound where the data folder has nothing of the job, UsageError for a job without the section, or whose scores
    are all alike, and TooFewRows.
    """
    if job.spec.student is None:
        raise UsageError(
            f"The job {job.name} has no section student: add student: {{text: {job.spec.input.key[0]}}} to {job.path}."
        )
    data.require()
    with prepare(job, data, options, info) as prepared, open_if_served(data) as served:
        check_slices(job, prepared.query_list.source)
        check_student_text(job, prepared.query_list.source)
        golden = read_golden(job, prepared.query_list.source.key)
        candidate = Candidate(prepared.workspace, served.folder if served else None, calibration=ScoreSource())
        return Pupil(candidate, prepared.workspace, golden, embeddings_of(job), info).report
