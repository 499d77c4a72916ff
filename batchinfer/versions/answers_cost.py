"""What a version says its answers took to make, in all and by group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from batchinfer.versions.checked import checked_count


@dataclass(frozen=True, slots=True)
class AnswersCost:
    """Of a version, or of one group of its keys. An answer has the share of its run that its tokens have.

    answers: entries that a model gave.
    known: those of them whose run said what it used.
    tokens: that were computed for these; where entries have one prompt, each has its part.
    device_seconds: for these.
    money: for these, as their runs cost, or at the price of now where those named none; None without a price.
    currency: of the money.
    """

    answers: int
    known: int
    tokens: int
    device_seconds: float
    money: float | None
    currency: str | None

    @property
    def each(self) -> float | None:
        """The money of one answer."""
        return None if self.money is None or not self.known else self.money / self.known

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Of what manifest.json says. Raises KeyError, TypeError or ValueError for a damaged one."""
        counts = {name: checked_count(document[name]) for name in ("answers", "known", "tokens")}
        money = document["money"]
        return cls(
            **counts,
            device_seconds=float(document["device_seconds"]),
            money=None if money is None else float(money),
            currency=document["currency"],
        )


@dataclass(frozen=True, slots=True)
class GroupCost:
    """The same of a group of the list's rows.

    column: of the list.
    value: what it holds there; None where it holds nothing.
    cost: of the answers to these rows.
    """

    column: str
    value: str | None
    cost: AnswersCost

    def to_json(self) -> dict[str, Any]:
        return {"column": self.column, "value": self.value, **asdict(self.cost)}


@dataclass(frozen=True, slots=True)
class VersionCost:
    """Of a whole version.

    whole: of all its answers.
    slices: of the groups of `audit.slices`, the largest first.
    """

    whole: AnswersCost
    slices: tuple[GroupCost, ...] = ()

    @classmethod
    def of(cls, document: Mapping[str, Any] | None) -> Self | None:
        """Of what manifest.json says; None where it says nothing, or nothing that can be read."""
        try:
            if document is None:
                return None
            groups = [
                GroupCost(str(group["column"]), group["value"], AnswersCost.of(group)) for group in document["slices"]
            ]
            return cls(AnswersCost.of(document), tuple(groups))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self.whole), "slices": [group.to_json() for group in self.slices]}
