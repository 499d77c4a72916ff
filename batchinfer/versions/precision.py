"""The precision of a version, which is found once people have judged a sample of it: evals/precision-v<N>.json beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from batchinfer.core.home import JobData


@dataclass(frozen=True, slots=True)
class ServedPrecision:
    """How many predictions of a version are right.

    version: its number.
    estimate: the share that is right, without what people imported.
    low, high: where it lies with 95 %.
    verdicts: judged rows of samples.
    made_at: when it was worked out, RFC 3339, UTC.
    """

    version: int
    estimate: float
    low: float
    high: float
    verdicts: int
    made_at: str

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> ServedPrecision:
        """What the file says. Raises ValueError, KeyError or TypeError."""
        made_at = content["made_at"]
        datetime.fromisoformat(made_at)
        value, low, high = (_share(content[name]) for name in ("estimate", "low", "high"))
        return cls(int(content["version"]), value, low, high, int(content["verdicts"]), made_at)

    def to_json(self) -> dict[str, Any]:
        """As the service has it, beside the version."""
        content = asdict(self)
        del content["version"]
        return content


def precision_file(data: JobData, version: int) -> Path:
    """Where the precision of a version is written."""
    return data.evals / f"precision-v{version}.json"


def read_precision(data: JobData, version: int) -> ServedPrecision | None:
    """The precision of a version; None where there is none that can be read."""
    try:
        found = ServedPrecision.of(json.loads(precision_file(data, version).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return found if found.version == version else None


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(value)
    return float(value)
