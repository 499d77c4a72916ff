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
    least_rows: Annotated[int, Field(ge=2)] = Field(
        50, description="Of a group with fewer rows nothing is said: not enough data."
    )


class AuditSpec(Section):
    """How well the job does for each group of its rows, and what is too far apart."""

    slices: Distinct = Field([], description="Columns of the list whose values are groups, such as language.")
    limits: AuditLimits = AuditLimits()
