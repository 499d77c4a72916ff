"""What runs, versions and groups cost, beside what was served."""

from __future__ import annotations

from typing import Any

import pytest

from batchinfer.cache.schema import RunRow, RunStatus
from batchinfer.core.cost import Cost
from batchinfer.pipeline.ledger import Ledger


def row(number: int, money: float | None, status: RunStatus = RunStatus.DONE, **report: Any) -> RunRow:
    """A run that held a CPU for as many seconds as it has money."""
    cost = Cost("cpu", money or 1.0, 100, 0, 10, money, None if money is None else "USD")
    return RunRow(number, status, None, None, {"cost": cost.to_json(), **report})


def test_what_was_paid_for_look_ups_and_what_live_calls_would_have_cost() -> None:
    """By run and in all. Runs aside cost money, and their answers are none that are served."""
    runs = [
        row(3, 2.0, generated=0, version=2),
        row(2, 5.0, RunStatus.EVAL, generated=1000),
        row(1, 10.0, generated=100, version=1),
    ]
    ledger = Ledger.of(runs, {1: 5000, 2: 1000}, {1: [1], 3: [2]})
    assert (ledger.money, ledger.currency, ledger.device_seconds, ledger.per_answer) == (17.0, "USD", 17.0, 0.12)
    third, aside, first = (ledger.served(run) for run in runs)
    assert third is not None
    assert first is not None
    assert aside is None
    assert (third.lookups, third.money_per_1000) == (1000, 2.0)
    assert (first.lookups, first.money_per_1000) == (5000, 2.0)
    assert [third.live_money, first.live_money, ledger.whole().money_per_1000] == pytest.approx([120, 600, 17 / 6])
    assert ledger.whole().lookups == 6000
    assert str(ledger) == (
        "All runs cost 17.00 USD: 2.83 USD for each 1,000 of the 6,000 look-ups that were answered. Asking the model each time "
        "would have cost about 720.00 USD, at 120.00 USD for 1,000 answers."
    )


@pytest.mark.parametrize(
    ("runs", "lookups"),
    [([], {}), ([row(1, None, generated=3, version=1)], {1: 5}), ([row(1, 1.0, generated=3, version=1)], {}),
     ([RunRow(1, RunStatus.DONE, None, None, {"version": 1})], {1: 5})],
)  # fmt: skip
def test_where_there_is_nothing_to_compare(runs: list[RunRow], lookups: dict[int, int]) -> None:
    """Without prices, without look-ups, and of older programs: no sentence, and nothing divided by nothing."""
    ledger = Ledger.of(runs, lookups, {run.run_id: [1] for run in runs})
    assert str(ledger) == ""
    assert all(ledger.served(run) is not None for run in runs)
    assert ledger.to_json()["lookups"] == sum(lookups.values())


def test_another_currency_is_not_added() -> None:
    """Sums are of the newest run's currency."""
    old = RunRow(
        1, RunStatus.DONE, None, None, {"cost": Cost("gpu", 9.0, 1, 0, 1, 9.0, "EUR").to_json(), "generated": 9}
    )
    ledger = Ledger.of([row(2, 1.0, generated=4), old], {1: 1000}, {1: [1]})
    assert (ledger.money, ledger.is_whole) == (1.0, False)
    assert str(ledger) == "", "what was paid is not all that was paid for these look-ups"
    served = ledger.served(old)
    assert served is not None
    assert (served.money_per_1000, served.live_money, served.currency) == (None, 250.0, "USD")


def test_versions_that_were_published_later_count_for_their_run() -> None:
    """By `publish`, after a run with --no-publish, or again as a refused candidate."""
    ledger = Ledger.of([row(1, 2.0, generated=4)], {1: 500, 2: 500}, {1: [1, 2]})
    served = ledger.served(row(1, 2.0, generated=4))
    assert served is not None
    assert (served.lookups, served.money_per_1000) == (1000, 2.0)
