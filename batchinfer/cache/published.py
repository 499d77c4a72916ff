"""Which versions hold the answers of a job's runs."""

from __future__ import annotations

from batchinfer.cache.store import Store


def versions_by_run(store: Store) -> dict[int, list[int]]:
    """The versions that were published, by the newest run whose answers they hold."""
    with store.open() as db:
        rows = db.execute("SELECT run_id, list(version ORDER BY version) FROM versions GROUP BY run_id").fetchall()
    return dict(rows)
