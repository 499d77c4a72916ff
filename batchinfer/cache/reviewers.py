"""Who gave verdicts and answers to a job, how many, and when."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from batchinfer.cache.store import Store
from batchinfer.core.clock import iso
from batchinfer.core.records import VerdictKind


@dataclass(frozen=True, slots=True)
class Reviewer:
    """A person, by the name that came with their rows.

    author: the name; None where rows came without one.
    accepted: verdicts that accept.
    rejected: verdicts that reject.
    corrected: verdicts that give another value.
    answered: answers that were imported, without a verdict.
    first, last: when the first and the last of them came, RFC 3339, UTC.
    """

    author: str | None
    accepted: int
    rejected: int
    corrected: int
    answered: int
    first: str | None
    last: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def reviewers(store: Store) -> tuple[Reviewer, ...]:
    """Everybody whose rows the cache has, who gave most first. Rows that follow from others are not counted."""
    kinds = ", ".join(
        f"count(*) FILTER (verdict = '{kind}')"
        for kind in (VerdictKind.ACCEPT, VerdictKind.REJECT, VerdictKind.CORRECT)
    )
    with store.open() as db:
        rows = db.execute(
            f"SELECT nullif(author, '') AS name, {kinds}, count(*) FILTER (verdict IS NULL), min(created_at), max(created_at) "
            "FROM imports WHERE follows IS NOT true GROUP BY name ORDER BY count(*) DESC, name"
        ).fetchall()
    return tuple(
        Reviewer(name, accepted, rejected, corrected, answered, iso(first), iso(last))
        for name, accepted, rejected, corrected, answered, first, last in rows
    )
