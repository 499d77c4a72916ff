"""What a run used so far, as it goes on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from batchinfer.core.cost import Cost, DeviceKind, Devices, ModelShare, Price
from batchinfer.pipeline.progress import Progress


class Meter:
    """Counts the seconds in which devices are held, for each model."""

    def __init__(self) -> None:
        self.kind: DeviceKind | None = None
        self._settled = dict[str, float]()  # by model
        self._model, self._count, self._since = "", 0, 0.0

    @contextlib.contextmanager
    def until_released(self) -> Iterator[None]:
        """To be entered before devices are had: what is held in it is held no more at its end."""
        try:
            yield
        finally:
            self._settled[self._model], self._count = self.seconds_of(self._model), 0

    def hold(self, devices: Devices, model: str) -> None:
        """These devices are had from now on, instead of those before. model: the label of what is asked there."""
        self._settled[model] = self.seconds_of(model)
        self.kind, self._model, self._count, self._since = devices.kind, model, devices.count, time.monotonic()

    def seconds_of(self, model: str) -> float:
        """Device-seconds for a model so far."""
        running = self._count * (time.monotonic() - self._since) if model == self._model else 0.0
        return self._settled.get(model, 0.0) + running

    @property
    def device_seconds(self) -> float:
        """Of all models."""
        return sum(self.seconds_of(model) for model in {*self._settled, self._model})


def cost_of(
    progress: Progress, device: DeviceKind | None, device_seconds: float, price: Price | None, models: Sequence[ModelShare] = ()
) -> Cost:  # fmt: skip
    """Of what was asked, and how long that held devices."""
    seconds = round(device_seconds, 3)
    return Cost(
        device, seconds, progress.prompt_tokens, progress.cached_tokens, progress.output_tokens,
        money=None if price is None else price.of_seconds(seconds), currency=None if price is None else price.currency,
        models=tuple(models),
    )  # fmt: skip
