"""What runs use: seconds of devices, tokens, and money where the job names a price. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

HOUR = 3600.0  # seconds
DeviceKind = Literal["gpu", "cpu", "server"]


@dataclass(frozen=True, slots=True)
class Devices:
    """What an engine holds.

    kind: of device.
    count: how many GPUs; all CPUs of a machine count as one, and so does a server that others run.
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


@dataclass(frozen=True, slots=True)
class ModelShare:
    """What one of several models took of a run.

    model: its label.
    device_seconds: for how long devices were held for it, times their number.
    tokens: that it computed.
    """

    model: str
    device_seconds: float
    tokens: int


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
    models: the shares of two models that shared the list; empty where there was one.
    """

    device: DeviceKind | None
    device_seconds: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    money: float | None
    currency: str | None
    models: tuple[ModelShare, ...] = ()

    @property
    def shares(self) -> tuple[tuple[str | None, float, int], ...]:
        """Model, device-seconds and computed tokens of each; one share of no name where there was one model."""
        if self.models:
            return tuple((each.model, each.device_seconds, each.tokens) for each in self.models)
        return ((None, self.device_seconds, self.prompt_tokens - self.cached_tokens + self.output_tokens),)

    @classmethod
    def of(cls, document: Any) -> Self | None:
        """Of a stored report's field; None where there is none, or one that is not what it should be."""
        if not isinstance(document, Mapping):
            return None
        try:
            shares = [
                ModelShare(str(each["model"]), _amount(each["device_seconds"]), int(_amount(each["tokens"])))
                for each in document.get("models", ())
            ]
            prompt, cached, output = (
                int(_amount(document[name])) for name in ("prompt_tokens", "cached_tokens", "output_tokens")
            )
            seconds, money = _amount(document["device_seconds"]), document["money"]
            paid = None if money is None else _amount(money)
            return cls(document["device"], seconds, prompt, cached, output, paid, document["currency"], tuple(shares))
        except (KeyError, TypeError, ValueError, OverflowError):
            return None

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        return found if self.models else {name: value for name, value in found.items() if name != "models"}


def _amount(value: Any) -> float:
    """A number that may be added. Raises TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{value!r} is no amount")
    return value


def money_text(money: float, currency: str) -> str:
    """A sum for people: cents where it has some, and two digits that say something where it is less than one."""
    if money == 0 or money >= 1:
        return f"{money:,.2f} {currency}"
    return f"{money:.{1 - math.floor(math.log10(money))}f} {currency}"
