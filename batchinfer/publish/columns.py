"""Columns of the list that a job names, looked at before hours of work."""

from __future__ import annotations

from batchinfer.inputs.parquet import ListSource
from batchinfer.job.reader import Job, faulty
from batchinfer.publish.aliases import check_aliases
from batchinfer.publish.sliced import check_slices


def check_columns(job: Job, source: ListSource) -> None:
    """Raises SpecError or InputError for one that is not there, or holds what cannot be used. source: the job's list."""
    check_slices(job, source)
    check_aliases(job, source)
    check_student_text(job, source)


def check_student_text(job: Job, source: ListSource) -> None:
    """Raises SpecError where the column that a student is to read has no texts: it would never be asked."""
    kind = source.key[0].kind
    if job.spec.student is not None and kind != "string":
        said = f"a student reads texts, but the column {source.key[0].name} of the list is {kind}."
        raise faulty(job, [(("student", "text"), said)])
