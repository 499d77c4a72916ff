"""The section cost of the job file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from batchinfer.core.cost import Price
from batchinfer.core.fields import Section


class CostSpec(Section):
    """What the devices cost that the job runs on. Runs then say what they cost, and may have a budget."""

    per_gpu_hour: float = Field(
        gt=0,
        allow_inf_nan=False,
        description="The price of an hour of one GPU; where a run has none, of an hour of the machine's CPUs together, "
        "and where a server is asked, of an hour of that server.",
    )
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = Field(
        "USD", description="Of the price: three capital letters, such as EUR."
    )

    @property
    def price(self) -> Price:
        return Price(self.per_gpu_hour, self.currency)
