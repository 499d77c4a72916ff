"""What lasts is logged once: work that is done again and again meets the same fault each time, and a full disk may take the log, too."""

from __future__ import annotations

import logging

from batchinfer.errors import BatchinferError

FaultKind = tuple[type[Exception], int | None]
"""A fault's class and the system's number for it: its text may have a number that is another each time."""


class LastingFaults:
    """What keeps some work from being done."""

    def __init__(self, log: logging.Logger, what: str) -> None:
        """what: what could not be done, as a sentence without its end."""
        self._log, self._what = log, what
        self._known = set[FaultKind]()

    def over(self) -> None:
        """The work was done: what comes after is news."""
        self._known.clear()

    def note(self, fault: Exception) -> None:
        """Logs a fault if none of its kind came since the work was last done, with a trace where no sentence says it."""
        kind = type(fault), getattr(fault, "errno", None)
        if kind in self._known:
            return
        self._known.add(kind)
        if isinstance(fault, BatchinferError):
            self._log.error("%s: %s", self._what, fault)
        elif isinstance(fault, OSError):
            where = f"{fault.filename}: " if fault.filename else ""
            said = fault.strerror or str(fault) or type(fault).__name__
            self._log.error("%s: %s%s.", self._what, where, said.removesuffix("."))
        else:
            self._log.error("%s.", self._what, exc_info=fault)
