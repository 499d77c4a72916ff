"""What runs use: seconds of devices, tokens, and money where the job names a price. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

HOUR = 3600.0  # seconds
DeviceKind = Literal["gpu", "cpu"]


@dataclass(frozen=True, slots=True)
class Devices:
    """What an engine holds.

    kind: of device.
    count: how many GPUs; all CPUs of a machine count as one.
    """

    kind: DeviceKind
    count: int


@dataclass(frozen=True, slots=True)
class Price:
    """What a device costs.

    per_hour: of one device.
    currency: of that, such as USD.
    """

    per_hour: float
    currency: str

    def of_seconds(self, device_seconds: float) -> float:
        """What so many device-seconds cost."""
        return device_seconds * self.per_hour / HOUR

    def seconds_for(self, money: float) -> float:
        """The device-seconds that can be had for it."""
        return money * HOUR / self.per_hour


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run used.

    device: the kind that it held; None where it asked no model.
    device_seconds: for how long, loading the model included, times the number of devices.
    prompt_tokens: of the prompts that were answered.
    cached_tokens: those of them that prefix caching saved.
    output_tokens: of the answers.
    money: None where the job names no price.
    currency: of the money.
    """

    device: DeviceKind | None
    device_seconds: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    money: float | None
    currency: str | None

    @property
    def computed_tokens(self) -> int:
        """Tokens that the model worked on: what a share of the cost is reckoned by."""
        return self.prompt_tokens - self.cached_tokens + self.output_tokens

    @classmethod
    def of(cls, document: Any) -> Self | None:
        """Of a stored report's field; None where there is none, or one that is not what it should be."""
        if not isinstance(document, Mapping):
            return None
        try:
            cost = cls(**{name: document[name] for name in cls.__dataclass_fields__})
            seconds, money = float(cost.device_seconds), float(cost.money or 0)
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        return cost if math.isfinite(seconds) and math.isfinite(money) else None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def money_text(money: float, currency: str) -> str:
    """A sum for people: cents where it has some, and two digits that say something where it is less than one."""
    if money == 0 or money >= 1:
        return f"{money:,.2f} {currency}"
    return f"{money:.{1 - math.floor(math.log10(money))}f} {currency}"
