"""What a job's runs cost, beside the look-ups that their versions answered and what live calls would have cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from batchinfer.cache.schema import RunRow
from batchinfer.cache.store import Store
from batchinfer.core.cost import Cost, money_text
from batchinfer.core.home import JobData
from batchinfer.versions.lookups import read_lookups

THOUSAND = 1000


@dataclass(frozen=True, slots=True)
class Served:
    """Look-ups that a service answered, and what they came to.

    lookups: how many.
    money_per_1000: what was paid for a thousand of them; None without a price, or without look-ups.
    live_money: what asking the model each time would have cost; None where nobody knows what an answer costs.
    """

    lookups: int
    money_per_1000: float | None
    live_money: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Ledger:
    """Of a job.

    money: of all its runs, those of evaluations and audits, too; None where none named a price.
    currency: that of the newest run that named one; others do not count.
    device_seconds: of all its runs.
    per_answer: what runs paid for an answer, loading the model and failed rows included; None where nothing is known.
    lookups: that a service answered, by version.
    """

    money: float | None
    currency: str | None
    device_seconds: float
    per_answer: float | None
    lookups: Mapping[int, int]

    @classmethod
    def of(cls, runs: Sequence[RunRow], lookups: Mapping[int, int]) -> Self:
        """runs: newest first."""
        costs = [(run, cost) for run in runs if (cost := Cost.of(run.report.get("cost"))) is not None]
        currency = next((cost.currency for _, cost in costs if cost.money is not None), None)
        paid = [(run, cost.money) for run, cost in costs if cost.money is not None and cost.currency == currency]
        asked = [(money, run.report.get("generated") or 0) for run, money in paid if not run.status.is_aside]
        answers = sum(generated for _, generated in asked)
        return cls(
            money=sum(money for _, money in paid) if paid else None,
            currency=currency,
            device_seconds=sum(cost.device_seconds for _, cost in costs),
            per_answer=sum(money for money, _ in asked) / answers if answers else None,
            lookups=lookups,
        )

    def served(self, run: RunRow) -> Served | None:
        """What the version that a run published answered, as paid by that run; None where it published none."""
        version = run.report.get("version")
        if not isinstance(version, int):
            return None
        cost = Cost.of(run.report.get("cost"))
        paid = cost.money if cost is not None and cost.currency == self.currency else None
        return self._came_to(self.lookups.get(version, 0), paid)

    def whole(self) -> Served:
        """What all versions answered, as paid by all runs."""
        return self._came_to(sum(self.lookups.values()), self.money)

    def _came_to(self, lookups: int, paid: float | None) -> Served:
        each = None if paid is None or not lookups else THOUSAND * paid / lookups
        return Served(lookups, each, None if self.per_answer is None else lookups * self.per_answer)

    def to_json(self) -> dict[str, Any]:
        whole = self.whole().to_json()
        return {
            "money": self.money, "currency": self.currency, "device_seconds": round(self.device_seconds, 3),
            "money_per_answer": self.per_answer, **whole,
        }  # fmt: skip

    def __str__(self) -> str:
        """A sentence for people; empty where there is nothing to compare."""
        whole = self.whole()
        if self.money is None or self.currency is None or whole.money_per_1000 is None:
            return ""
        said = (
            f"All runs cost {money_text(self.money, self.currency)}: {money_text(whole.money_per_1000, self.currency)} for each "
            f"1,000 of the {whole.lookups:,} look-ups that were answered."
        )
        if whole.live_money is None or self.per_answer is None:
            return said
        return (
            f"{said} Asking the model each time would have cost about {money_text(whole.live_money, self.currency)}, at "
            f"{money_text(THOUSAND * self.per_answer, self.currency)} for 1,000 answers."
        )


def read_ledger(data: JobData) -> Ledger:
    """As of now."""
    return Ledger.of(Store(data.cache).runs(), read_lookups(data))
