"""Times: as the tables hold them, as people read them, and what several packages go by."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

SKEW = timedelta(minutes=1)  # between the clocks of machines that share a data folder
RUN_STOP_SECONDS = 30.0  # that what is in flight has once a run is to stop, unless a caller says otherwise


def now() -> datetime:
    """The time in UTC, without a zone, as the tables hold it."""
    return datetime.now(UTC).replace(tzinfo=None)


def latest() -> datetime:
    """The latest stored time that can be believed. What is later was made under a clock that went wrong: its age is unknown."""
    return now() + SKEW


def iso(moment: datetime | None) -> str | None:
    """A stored time as text."""
    return None if moment is None else moment.isoformat(timespec="seconds").removesuffix("+00:00") + "Z"


def shown(value: date) -> str:
    """A date or time out of a list as text: RFC 3339, where it has a zone."""
    text = value.isoformat()
    return f"{text.removesuffix('+00:00')}Z" if text.endswith("+00:00") else text
