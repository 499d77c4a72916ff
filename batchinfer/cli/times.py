"""Times as people read them: on the clocks of a zone, and how far away."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)


def time_in_zone(time: datetime | None, zone: str | None, now: datetime) -> str:
    """A time on the clocks of a zone, UTC unless given, and how far away it is. now: with a zone, as the time."""
    if time is None:
        return "never"
    away = long_ago(abs(time - now))
    return f"{time.astimezone(ZoneInfo(zone or 'UTC')):%a %Y-%m-%d %H:%M %Z} ({f'in {away}' if time > now else f'{away} ago'})"


def long_ago(distance: timedelta) -> str:
    """A length of time."""
    from batchinfer.cli.progress import duration

    return duration(distance.total_seconds()) if distance < 2 * DAY else f"{round(distance / DAY)} days"
