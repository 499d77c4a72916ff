"""What a run used so far, as it goes on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from batchinfer.core.cost import Cost, DeviceKind, Devices, Price
from batchinfer.pipeline.progress import Progress


class Meter:
    """Counts the seconds in which devices are held."""

    def __init__(self) -> None:
        self._kind: DeviceKind | None = None
        self._settled, self._count, self._since = 0.0, 0, 0.0

    @contextlib.contextmanager
    def holding(self, devices: Devices) -> Iterator[None]:
        """Counts for as long as it is open."""
        self._kind, self._count, self._since = devices.kind, devices.count, time.monotonic()
        try:
            yield
        finally:
            self._settled, self._count = self.device_seconds, 0

    @property
    def device_seconds(self) -> float:
        """So far."""
        return self._settled + self._count * (time.monotonic() - self._since)

    def cost(self, progress: Progress, price: Price | None) -> Cost:
        """Of what the run came to so far."""
        return cost_of(progress, self._kind, self.device_seconds, price)


def cost_of(progress: Progress, device: DeviceKind | None, device_seconds: float, price: Price | None) -> Cost:
    """Of what was asked, and how long that held devices."""
    seconds = round(device_seconds, 3)
    return Cost(
        device, seconds, progress.prompt_tokens, progress.cached_tokens, progress.output_tokens,
        money=None if price is None else price.of_seconds(seconds), currency=None if price is None else price.currency,
    )  # fmt: skip
