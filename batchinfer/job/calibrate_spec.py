"""The section calibrate of the job file."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from batchinfer.core.fields import NonEmpty, Section, distinct
from batchinfer.core.keys import JOB_NAME


class CalibrateSpec(Section):
    """Scores that are the chance of being right, as `batchinfer calibrate` learned it from people's verdicts.

    Nothing here changes an answer.
    """

    group: NonEmpty | None = Field(
        None,
        description="A column of the list whose values are held out in turn, such as language; match.language, or else the first of "
        "audit.slices, unless given.",
    )
    scores: Annotated[list[Annotated[str, Field(pattern=f"^{JOB_NAME}$")]], AfterValidator(distinct)] = Field(
        [],
        description="Other jobs whose served scores are looked at, too; their keys are columns of this job's. The job of `input.job` is "
        "one of them anyway.",
    )
    votes: Annotated[list[Annotated[str, Field(pattern=f"^{JOB_NAME}$")]], AfterValidator(distinct)] = Field(
        [],
        description="In a job with input.explode: other jobs that make such lists, as the job of `input.job` does, with another seed, "
        "prompt or model. How many of them list an item is looked at, too; their keys are columns of this job's.",
    )
