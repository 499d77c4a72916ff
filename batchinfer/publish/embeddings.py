"""What learning a job's student takes, looked at before hours of work: libraries, and the embeddings of one that has some."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchinfer.errors import UsageError
from batchinfer.job.reader import Job, placing
from batchinfer.student.version import need_student_libraries

if TYPE_CHECKING:  # brings numpy, which only jobs with a student need
    from batchinfer.student.embeddings import Embeddings

FIELD = "student.embeddings"


def embeddings_of(job: Job) -> Embeddings | None:
    """None for a linear student, or none. Raises MissingExtra, SpecError, InputError, or UsageError for too many choices."""
    student = job.spec.student
    if student is None:
        return None
    need_student_libraries()
    if student.kind == "linear":
        return None
    from batchinfer.student.embeddings import most_choices, read_embeddings

    with placing(job):
        found = read_embeddings(None if student.embeddings is None else job.inside(FIELD, student.embeddings))
        if len(job.spec.output.choices or ()) > (most := most_choices(found)):
            said = f"These embeddings have {len(found.vectors):,} tokens, which allows {most:,} choices at most"
            raise UsageError(f"{said}: take smaller ones, or kind: linear.", field=("student", "embeddings"))
    return found
