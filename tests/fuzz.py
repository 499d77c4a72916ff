"""How many cases the tests make up that try anything: few each time, and as many as BATCHINFER_FUZZ says in the long form."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

IS_LONG = "BATCHINFER_FUZZ" in os.environ
CASES = int(os.environ.get("BATCHINFER_FUZZ", "125"))
"""Of each of four kinds: job files, reviews, version folders, and requests over HTTP."""

HANG_SECONDS = 5


def anything(tests: int, **more: object) -> settings:
    """Settings of a test of one kind, of which there are so many tests. In the long form a case that hangs fails."""
    return settings(
        max_examples=max(CASES // tests, 1),
        deadline=HANG_SECONDS * 1000 if IS_LONG else None,
        suppress_health_check=list(HealthCheck),
        **more,  # type: ignore[arg-type]
    )
