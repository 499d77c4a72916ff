"""Which prompts to generate, in which order: the list against the cache."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Selection:
    """What to make again although the cache has it."""

    retry_failed: bool = False
    refresh_since: datetime | None = None  # what was made before is made again: all, or the rows of refresh_where
    refresh_where: tuple[str, str] | None = None  # column, value
    max_age: timedelta | None = None

    @property
    def replaces(self) -> bool:
        """Whether keys that are in the cache may be generated."""
        return self.retry_failed or self.refresh_since is not None or self.max_age is not None


def _since(oldest: datetime | None) -> str:
    return "" if oldest is None else f"WHERE created_at >= TIMESTAMP '{oldest.isoformat(sep=' ')}'"
