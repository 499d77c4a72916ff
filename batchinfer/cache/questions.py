"""What each run asked, as the cache has it: one question, or those to a small and to a large model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from batchinfer.core.keys import canonical_json

if TYPE_CHECKING:
    from batchinfer.cache.store import Store

ASKED = (
    "(SELECT run_id, status, fingerprint, parts FROM runs UNION ALL "
    "SELECT q.run_id, r.status, q.fingerprint, q.parts FROM run_questions q JOIN runs r USING (run_id))"
)
"""SQL for all questions: run_id, status, fingerprint, parts."""
ATTACHED = "(SELECT fingerprint, parts FROM cache.runs UNION ALL SELECT fingerprint, parts FROM cache.run_questions)"
"""SQL for fingerprint and parts of all questions, where the cache is attached."""


def ask_next(store: Store, run_id: int, fingerprint: bytes, parts: Mapping[str, Any] | None) -> None:
    """Records that a run asks another question from now on: its failures are those of the list. What it asked before stays known."""
    with store.open(write=True) as db:
        db.execute("INSERT INTO run_questions SELECT run_id, fingerprint, parts FROM runs WHERE run_id = ?", [run_id])
        sql = "UPDATE runs SET fingerprint = ?, parts = ? WHERE run_id = ?"
        db.execute(sql, [fingerprint, canonical_json(parts), run_id])
