"""`run --budget`: what the runs of a job may cost together until one of them comes to its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from batchinfer.cache.schema import RunRow, RunStatus
from batchinfer.core.cost import Cost, Price, money_text
from batchinfer.errors import Stopped, UsageError
from batchinfer.job.reader import Job
from batchinfer.pipeline.meter import Meter
from batchinfer.pipeline.report import figure
from batchinfer.pipeline.stop import Stop

ENDED = (RunStatus.DONE, RunStatus.REJECTED)


def check_priced(job: Job, budget: float | None) -> None:
    """Raises UsageError for a budget without a price to reckon it by."""
    if budget is not None and job.spec.cost is None:
        raise UsageError(
            f"--budget needs a price, and {job.path} names none: add cost: {{per_gpu_hour: 2.5, currency: USD}} with yours, or limit "
            "the time by --max-hours."
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a run may still spend.

    money: in all, in the currency of the price.
    spent: by the runs before it that did not come to their end.
    price: of the devices.
    """

    money: float
    spent: float
    price: Price

    @classmethod
    def of(cls, job: Job, money: float | None, runs: list[RunRow]) -> Self | None:
        """runs: of the job, newest first. None without a budget."""
        if money is None or job.spec.cost is None:
            return None
        return cls(money, _spent_since_end(runs, job.spec.cost.price.currency), job.spec.cost.price)

    def check(self, meter: Meter) -> None:
        """Raises Stopped where nothing is left: no model is loaded then. meter: of the run."""
        spent = self._spent(meter)
        if spent >= self.money:
            raise Stopped(
                f"The budget of {money_text(self.money, self.price.currency)} is spent: the runs since the last that left nothing to do "
                f"cost {money_text(spent, self.price.currency)}. Give a larger --budget to go on; nothing committed is lost."
            )

    def bound(self, stop: Stop, meter: Meter) -> None:
        """Lets a run stop in order once the budget is spent. meter: of the run."""
        said = money_text(self.money, self.price.currency)
        stop.bound(
            lambda: self._spent(meter) >= self.money,
            f"The run reached its budget of {said}. Run it again with a larger --budget to go on from here; nothing committed is lost.",
            f"The budget of {said} is reached: finishing what is in flight.",
        )

    def _spent(self, meter: Meter) -> float:
        return self.spent + self.price.of_seconds(meter.device_seconds)


def _spent_since_end(runs: list[RunRow], currency: str) -> float:
    """The money of the newest runs, up to the last that left nothing to do. Runs aside of the list do not count."""
    spent = 0.0
    for run in runs:
        if run.status in ENDED and not figure(run.report, "remaining"):
            break
        cost = Cost.of(run.report.get("cost"))
        if cost is not None and cost.money is not None and cost.currency == currency and not run.status.is_aside:
            spent += cost.money
    return spent
