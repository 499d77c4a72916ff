"""A part of a list that a server works on, or has done: how it stands, and what of it is settled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from batchinfer.engines.batch_parts import BatchPart
from batchinfer.engines.server_api import Broken
from batchinfer.errors import shortened

LOST = "lost"  # the server knows nothing of it
DONE = frozenset({"completed", "expired", "cancelled", LOST})  # what there is of answers can be had then
TOO_MANY = "token_limit_exceeded"  # why a batch is not taken while others are worked on
IN_VAIN = {"expired": "let its batch expire", LOST: "lost its batch"}  # what it did where a part came to nothing


@dataclass(slots=True)
class Underway:
    """A part that the server has.

    part: as it is noted.
    unseen: its keys that no prompt of this call had so far.
    is_first: whether it was handed over while the server had no other at work.
    given: its keys whose answers were yielded, in the cache or not.
    settled: its keys whose answers are in the cache, or that another part has by now.
    content: the batch as it was last.
    """

    part: BatchPart
    unseen: set[str]
    is_first: bool = False
    given: set[str] = field(default_factory=set)
    settled: set[str] = field(default_factory=set)
    content: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return str(self.content.get("status")).lower()

    @property
    def is_done(self) -> bool:
        return self.status in DONE

    @property
    def is_idle(self) -> bool:
        """Whether nobody asked for anything of it so far: all of it was committed before, or is a later run's to ask."""
        return len(self.unseen) == len(self.part.keys)

    @property
    def is_settled(self) -> bool:
        """Whether nothing of it is needed any more."""
        return len(self.settled) == len(self.part.keys)

    @property
    def fault(self) -> Broken | None:
        """What went wrong with a row that has no answer; None where time ran out for it, and not for all."""
        if self.status == "completed":
            return Broken("gave no answer")
        return None if self.given or self.status not in IN_VAIN else Broken(IN_VAIN[self.status])

    @property
    def is_too_many(self) -> bool:
        """Whether it was not taken since others were at work."""
        return bool(self._error.get("code") == TOO_MANY)

    @property
    def why(self) -> str:
        """Why it was not taken, as the server says."""
        return str(self._error.get("message") or "it does not say why").rstrip(".")

    @property
    def _error(self) -> dict[str, Any]:
        errors = (self.content.get("errors") or {}).get("data") or [{}]
        return dict(errors[0])


def fault_of(error: Any) -> Any:
    """Raises Broken with what a server says of a request within a batch that it did not answer, if it says anything."""
    said = error if isinstance(error, str) else error.get("message") or error["code"]
    raise Broken(f"says: {shortened(' '.join(str(said).split())).rstrip('.')}")
