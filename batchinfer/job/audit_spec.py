"""The section audit of the job file."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from batchinfer.core.fields import NonEmpty, Section, Share, distinct

Distinct = Annotated[list[NonEmpty], AfterValidator(distinct)]


class AuditLimits(Section):
    """How far a group of rows may stand apart."""

    coverage_ratio: Share = Field(
        0.8, description="Least coverage of a slice, as a share of that of the whole list: four fifths."
    )
    failure_gap: Share = Field(
        0.1, description="How far the share of failed keys may lie above that of the whole list."
    )
    accuracy_gap: Share = Field(
        0.1, description="How far the accuracy on golden rows may lie below that of all of them."
    )
    swap_gap: Share = Field(
        0.1, description="How far the mean score may move, or how many answers may change, when terms are exchanged."
    )
    area_gap: Share = Field(
        0.1, description="How far an area of a group's sentences may lie below that of the other groups'."
    )
    least_rows: Annotated[int, Field(ge=2)] = Field(
        50, description="Of a group with fewer rows nothing is said: not enough data."
    )


class AuditSpec(Section):
    """How well the job does for each group of its rows, and what is too far apart."""

    slices: Distinct = Field([], description="Columns of the list whose values are groups, such as language.")
    swaps: Distinct = Field(
        [],
        description="YAML files of identity terms that are exchanged for one another, below the job's folder or an allowed root.",
    )
    templates: Distinct = Field(
        [],
        description="CSV or Parquet files of sentences with slots for terms, such as {gender} for gender.yaml of swaps, and a "
        "column answer.",
    )
    limits: AuditLimits = AuditLimits()

    @property
    def asks(self) -> bool:
        """Whether the model is asked something that is not in the list."""
        return bool(self.swaps or self.templates)
