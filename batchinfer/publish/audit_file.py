"""What audits found by asking, as the gate reads it: exchanged terms and sentences, from the newest audit.json that fits.

An audit fits as long as it asked as the candidate was asked, with the same prompt and model, and the same lists of terms,
sentences and limits. A candidate of another list is no other model, so audits outlive a change of rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from batchinfer.core.files import UNREAD, read_small
from batchinfer.core.home import JobData
from batchinfer.core.keys import canonical_json
from batchinfer.errors import InputError
from batchinfer.job.reader import Job
from batchinfer.job.spec import JobSpec
from batchinfer.publish.fairness import FittingAudit

REPORT = "audit.json"


def digest_lists(job: Job) -> str | None:
    """Of the files of terms and sentences; None where the job names none. Raises InputError or SpecError."""
    spec = job.spec.audit
    if not spec.asks:
        return None
    digest = hashlib.sha256()
    for field, names in (("swaps", spec.swaps), ("templates", spec.templates)):
        for place, name in enumerate(names):
            path = job.inside(f"audit.{field}", name)
            try:
                digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
            except OSError as exc:
                said = f"{path} cannot be read: {exc.strerror}."
                raise InputError(said, field=("audit", field, place)) from exc
    return digest.hexdigest()


def settings_of(spec: JobSpec, lists: str, fingerprint: str, parser: str) -> str:
    """A word for all that swaps and sentences depend on. lists: their digest. fingerprint, parser: of the question."""
    settings = [lists, fingerprint, parser, spec.audit.limits.model_dump(), spec.eval.positive]
    return hashlib.sha256(canonical_json(settings).encode()).hexdigest()


def read_newest_audit(data: JobData, settings: str) -> FittingAudit | None:
    """The newest audit that asked so; None if there is none that can be read."""
    return max(_fitting(data, settings), key=lambda audit: audit.made_at, default=None)


def _fitting(data: JobData, settings: str) -> Iterator[FittingAudit]:
    for path in data.audits.glob(f"*/{REPORT}") if data.audits.is_dir() else ():
        try:
            content = json.loads(read_small(path))
            if content["settings"] == settings:
                yield FittingAudit.of(content)
        except UNREAD:  # the gate does without it, and says what to do
            continue
