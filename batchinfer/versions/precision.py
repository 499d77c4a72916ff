"""The precision and recall of a version, which people's verdicts and golden rows tell: evals/precision-v<N>.json beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from batchinfer.core.files import UNREAD, read_small
from batchinfer.core.home import JobData


@dataclass(frozen=True, slots=True)
class ServedPrecision:
    """How many predictions of a version are right.

    estimate: the share that is right, without what people imported.
    low, high: where it lies with 95 %.
    verdicts: judged rows of samples.
    made_at: when it was worked out, RFC 3339, UTC.
    """

    estimate: float
    low: float
    high: float
    verdicts: int
    made_at: str

    def to_json(self) -> dict[str, Any]:
        """As the service has it, beside the version."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ServedRecall:
    """How much of what golden rows say that a right answer contains a version serves.

    estimate: the share that is served.
    low, high: where it lies with 95 %.
    rows: golden rows.
    made_at: when it was worked out, RFC 3339, UTC.
    """

    estimate: float
    low: float
    high: float
    rows: int
    made_at: str

    def to_json(self) -> dict[str, Any]:
        """As the service has it, beside the version."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ServedFigures:
    """How right a version is, as far as that is known.

    version: its number; None where nothing is known.
    precision: by verdicts; None with too few.
    recall: by golden rows; None without them.
    """

    version: int | None = None
    precision: ServedPrecision | None = None
    recall: ServedRecall | None = None

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> ServedFigures:
        """What the file says. Raises ValueError, KeyError or TypeError."""
        made_at, recall = content["made_at"], content.get("recall")
        datetime.fromisoformat(made_at)
        return cls(
            int(content["version"]),
            None
            if content["estimate"] is None
            else ServedPrecision(*_shares(content), int(content["verdicts"]), made_at),
            None if recall is None else ServedRecall(*_shares(recall), int(recall["rows"]), made_at),
        )


def precision_file(data: JobData, version: int) -> Path:
    """Where the figures of a version are written."""
    return data.evals / f"precision-v{version}.json"


def read_figures(data: JobData, version: int) -> ServedFigures:
    """The figures of a version; none where there is no file that can be read."""
    try:
        found = ServedFigures.of(json.loads(read_small(precision_file(data, version))))
    except UNREAD:
        return ServedFigures()
    return found if found.version == version else ServedFigures()


def _shares(content: Mapping[str, Any]) -> tuple[float, float, float]:
    estimate, low, high = (_share(content[name]) for name in ("estimate", "low", "high"))
    return estimate, low, high


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(value)
    return float(value)
