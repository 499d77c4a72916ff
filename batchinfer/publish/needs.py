"""What publishing needs beside the cache: files that the job names, columns of its list, and libraries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from batchinfer.inputs.parquet import ListSource
from batchinfer.job.reader import Job
from batchinfer.publish import audit_file, golden, matcher
from batchinfer.publish.columns import check_columns
from batchinfer.publish.embeddings import embeddings_of
from batchinfer.publish.golden import Golden

if TYPE_CHECKING:  # what learns is loaded for jobs with a student alone
    from batchinfer.student.embeddings import Embeddings


@dataclass(frozen=True, slots=True)
class PublishingNeeds:
    """What publishing needs beside the cache, read and checked before hours of work.

    golden: the job's golden rows, if it has some.
    embeddings: reads those that a student is learned on, as late as that, since they may be large; None gives none.
    lists: a digest of the lists of terms and sentences that an audit asks; None where the gate does not look at them.
    """

    golden: Golden | None = None
    lists: str | None = None
    embeddings: Callable[[], Embeddings | None] = lambda: None


def read_publishing_needs(job: Job, source: ListSource) -> PublishingNeeds:
    """Reads golden rows, and checks what else it would stop at: columns to audit and of aliases, a matcher's libraries, embeddings.

    source: the job's list. Raises InputError, SpecError or MissingExtra.
    """
    if job.spec.match is not None:
        matcher.need_libraries()
    embeddings_of(job)
    check_columns(job, source)
    lists = audit_file.digest_lists(job) if job.spec.gate.audit else None
    return PublishingNeeds(golden.read_golden(job, source.key), lists, partial(embeddings_of, job))
