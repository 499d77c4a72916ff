"""The section eval of a job file: which prompt is better, and how that is measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from batchinfer.core.fields import NonEmpty, Section


class EvalGoldenSpec(Section):
    """Rows whose right answers are known, to compare prompts by."""

    path: NonEmpty = Field(
        description="Parquet file with the key columns and a column answer, below the job's folder or an allowed root."
    )
    compare: Literal["equal", "contains"] = Field(
        "equal", description="Whether a prediction must be the answer, or may hold it among other things."
    )


class EvalSpec(Section):
    """The comparison of prompts, models and examples by `batchinfer eval`. Nothing here changes an answer."""

    golden: EvalGoldenSpec | None = Field(
        None, description="The rows to compare by; those of `gate.golden` unless given."
    )
    pool: NonEmpty | None = Field(
        None, description="Parquet file, as golden, to draw examples from; `prompt.examples` unless given."
    )
    choose: Literal["balanced", "random"] = Field(
        "balanced", description="How examples are drawn: each answer in turn, or whatever comes."
    )
    metric: Literal["auto", "accuracy", "auc", "contains", "f1"] = Field(
        "auto",
        description="What is compared; auto: auc with positive, contains if golden says so, f1 for lists, else accuracy.",
    )
    positive: NonEmpty | None = Field(None, description="The choice whose score auc is about.")
    dev: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5,
        description="Share of the golden rows to choose on; on the rest the chosen arm and the baseline are reported.",
    )
