"""Values of a manifest, which anybody may have edited, as what they should be."""

from __future__ import annotations

from typing import Any

from batchinfer.errors import shortened

MOST = 2**63  # of anything


def checked_count(value: Any) -> int:
    """A number of things. Raises ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MOST:
        raise ValueError(f"{shortened(repr(value))} is not a number of anything")
    return value


def checked_text(value: Any) -> str:
    """A text. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"{shortened(repr(value))} is not a text")
    return value
