"""The section finetune of the job file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from batchinfer.core.fields import NonEmpty, Section
from batchinfer.core.keys import JOB_NAME


class LabelsSpec(Section):
    """Where right answers come from, other than from imports."""

    job: Annotated[str, Field(pattern=f"^{JOB_NAME}$")] | None = Field(
        None, description="Another job with the same lookup key, as a rule one with a larger model."
    )
    path: NonEmpty | None = Field(
        None,
        description="Parquet file with the key columns and a column answer, below the job's folder or an allowed root.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> LabelsSpec:
        if (self.job is None) == (self.path is None):
            raise ValueError("needs job or path, and not both")
        return self


class FinetuneSpec(Section):
    """A LoRA adapter that `batchinfer finetune` trains for this one task. Nothing here changes an answer."""

    labels: Literal["imports"] | LabelsSpec = Field(
        "imports",
        description="The right answers: what people imported, accepted or corrected; `{path: FILE}`, with a column answer; or "
        "`{job: NAME}`, what that job serves.",
    )
    licence: NonEmpty | None = Field(
        None, description="Under what terms the labels may be used: noted with the adapter."
    )
    rank: Annotated[int, Field(ge=1)] = Field(8, description="Of the adapter: how much it can learn.")
    alpha: Annotated[float, Field(gt=0)] = Field(16, description="How strongly it counts: by alpha over rank.")
    learning_rate: Annotated[float, Field(gt=0, le=1)] = Field(5e-4, description="How far a step goes.")
    epochs: Annotated[int, Field(ge=1)] = Field(3, description="How often it sees each row.")
    batch: Annotated[int, Field(ge=1)] = Field(8, description="Rows of a step.")
    holdout: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="Share of the labels that it is held against and does not learn, in a job without golden rows."
    )
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = Field(
        0, description="Of the first weights and of the order of rows."
    )
    trainer: Literal["plain", "trl"] | None = Field(
        None,
        description="Who takes the steps: a plain loop, or TRL's SFTTrainer, which the extra trl installs. By default TRL on a GPU, "
        "and the plain loop on CPUs. Both learn the same.",
    )
