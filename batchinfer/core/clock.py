"""The time, as the tables hold it and as people read it."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """The time in UTC, without a zone, as the tables hold it."""
    return datetime.now(UTC).replace(tzinfo=None)


def iso(moment: datetime | None) -> str | None:
    """A stored time as text."""
    return None if moment is None else moment.isoformat(timespec="seconds").removesuffix("+00:00") + "Z"
