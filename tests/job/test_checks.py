"""What a job file says of the job as a whole."""

from __future__ import annotations

from batchinfer.job import reader
from batchinfer.job.checks import unused_fields

JOB = """\
name: shop
input: {path: queries.parquet, key: [id]}
"""


def test_a_schedule_is_said_to_be_unused() -> None:
    """A field that no command uses yet is kept, and its user is told what to do instead."""
    assert unused_fields(reader.parse(JOB, "job.yaml")) == []
    [sentence] = unused_fields(reader.parse(JOB + 'schedule: {cron: "0 3 * * 1"}\n', "job.yaml"))
    assert sentence.startswith("schedule: no command starts a run by it yet; start batchinfer run with cron")
