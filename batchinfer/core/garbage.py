"""How often Python looks for cycles of garbage: seldom, where most of what is made stays, as modules do, or the process ends soon."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

USUAL = gc.get_threshold()
SELDOM = 5000  # objects made since the last look, where Python has 700: fewer than the modules of a run bring


@contextlib.contextmanager
def collecting_seldom() -> Iterator[None]:
    """For all that a process of our own does: it looks for cycles seldom, and goes through nothing when it ends.

    At its end Python would look through all objects several times, to take apart what the system takes back at once.
    """
    gc.set_threshold(SELDOM)
    try:
        yield
    finally:
        gc.freeze()


def collect_as_usual() -> None:
    """For a process that such a one forked, and that serves: what requests leave in cycles may be large."""
    gc.set_threshold(*USUAL)
