"""How much a candidate holds, and of what."""

from __future__ import annotations

from dataclasses import dataclass, field

from batchinfer.publish.changes import ServedChanges


@dataclass(frozen=True, slots=True)
class Contents:
    """What a candidate holds.

    entries: how many.
    covered: keys of the list that have an entry, or lost theirs since people rejected it.
    carried: entries kept from what is served.
    served: entries of the version served now, 0 without one.
    missing: those of the served ones that are gone, except what people rejected.
    changed: those of the served ones whose value differs, except what people corrected.
    same: every body is equal to the current version's, and is found and served in the same way.
    to_review: the model's entries that gate.reviewed is about.
    unseen: those of to_review that nobody has looked at.
    changes: of what is served, people's part of it too.
    """

    entries: int
    covered: int
    carried: int
    served: int = 0
    missing: int = 0
    changed: int = 0
    same: bool = False
    to_review: int = 0
    unseen: int = 0
    changes: ServedChanges = field(default_factory=ServedChanges)
