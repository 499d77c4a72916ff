"""What engines that are no process have in common: nothing to let go of; and for some, a clock of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import Self

from batchinfer.core.cost import Devices
from batchinfer.engines.protocol import EngineInfo, NodeWork


class InProcess:
    """Base of engines that answer in the tests' own process."""

    devices = Devices("cpu", 1)
    nodes: Mapping[str, NodeWork] = MappingProxyType({})
    waited = 0.0

    def committed(self, keys: Iterable[bytes]) -> None:
        """Nothing is kept of what was asked."""

    def close(self) -> None:
        """Nothing was held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Clocked(InProcess):
    """Base of those that stand in for the module `time`, too: time passes as they let it."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def start(self) -> None:
        """Nothing is loaded."""

    def wait_ready(self) -> EngineInfo:
        return EngineInfo(max_model_len=1000, max_in_flight=8, description="a clock")
