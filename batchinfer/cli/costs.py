"""What runs and versions cost, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from batchinfer.cli.tables import cell, table
from batchinfer.cli.terminal import tell
from batchinfer.core.cost import Cost, money_text

if TYPE_CHECKING:
    from batchinfer.pipeline.ledger import Ledger
    from batchinfer.pipeline.report import RunReport
    from batchinfer.versions.answers_cost import AnswersCost

THOUSAND = 1000


def cost_rows(report: RunReport) -> list[tuple[str, str]]:
    """What a run used of devices, and what that cost, if it asked a model."""
    from batchinfer.cli.progress import duration

    cost = report.cost
    if cost is None or cost.device is None:
        return []
    rows = [(f"{cost.device.upper()} time", duration(cost.device_seconds))]
    if cost.money is not None and cost.currency is not None:
        rows.append(("cost", money_text(cost.money, cost.currency)))
        if report.generated:
            each = money_text(THOUSAND * cost.money / report.generated, cost.currency)
            rows.append(("  for 1,000 generated answers", each))
    return rows


def run_costs(report: Mapping[str, Any]) -> dict[str, str | None]:
    """Cells of the table of runs: what one cost, and what its version answered."""
    cost, served = Cost.of(report.get("cost")), report.get("served") or {}
    lookups, currency = served.get("lookups"), served.get("currency")
    return {
        "cost": None if cost is None else _sum(cost.money, cost.currency),
        "look-ups": f"{lookups:,}" if lookups else None,
        "for 1,000 look-ups": _sum(served.get("money_per_1000"), currency),
        "live calls": _sum(served.get("live_money") or None, currency),
    }


def _sum(money: float | None, currency: str | None) -> str | None:
    return None if money is None or currency is None else money_text(money, currency)


def tell_costs(report: RunReport) -> None:
    """What the answers of a version took, group by group where the job has groups."""
    cost = report.version_cost
    if cost is not None and report.version is not None and (said := _sentence(cost.whole)):
        tell(f"The model's answers of version {report.version} took {said}.")
    if cost is not None and cost.slices:
        rows = [
            [f"{group.column}={'(none)' if group.value is None else cell(group.value)}", f"{group.cost.answers:,}",
             f"{group.cost.tokens:,}", *_sums(group.cost)]
            for group in cost.slices
        ]  # fmt: skip
        columns = ["group", "answers", "tokens", "device seconds", "cost", "for 1,000"]
        table("What its groups took", columns, rows, right=columns[1:])


def _sentence(cost: AnswersCost) -> str:
    """What answers took, and for how many of them that is known; empty where nothing is."""
    from batchinfer.cli.progress import duration

    if not cost.known:
        return ""
    said = f"{duration(cost.device_seconds)} of devices"
    if cost.money is not None and cost.each is not None and cost.currency is not None:
        said += (
            f" and {money_text(cost.money, cost.currency)}, {money_text(THOUSAND * cost.each, cost.currency)} for 1,000"
        )
    return said if cost.known == cost.answers else f"{said} (known of {cost.known:,} of {cost.answers:,})"


def _sums(cost: AnswersCost) -> list[str]:
    """Cells of a group: seconds, money, and money for a thousand."""
    seconds = f"{cost.device_seconds:,.1f}"
    if cost.money is None or cost.each is None or cost.currency is None:
        return [seconds, "", ""]
    return [seconds, money_text(cost.money, cost.currency), money_text(THOUSAND * cost.each, cost.currency)]


def tell_ledger(ledger: Ledger | None) -> None:
    """What all runs cost, where there is something to set it against."""
    if ledger is not None and (said := str(ledger)):
        tell(said)
