"""Jobs that are served, for tests."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from tests.serving import Server

NORMALIZED = {"path": "queries.parquet", "key": ["text"], "normalize": ["nfkc", "casefold", "trim"]}
NOON = datetime(2026, 1, 31, 12, 30, 0, 123456, tzinfo=UTC)
TYPED: dict[str, list[Any]] = {
    "näme & co": ["ü +%&=?#/\\\"'", " a ", "日本語 😀"],
    "n": [-(2**63), 7, 2**62],
    "f": [1.5, -0.0, 1e-320],
    "b": [True, False, True],
    "d": [date(2026, 1, 31), date(1, 1, 1), date(9999, 12, 31)],
    "t": [NOON, datetime(1970, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)],
}


def prediction(server: Server) -> str | None:
    """What is answered for the entry a; None if nothing is."""
    reply = server.lookup("shop", id="a")
    return str(reply.json["prediction"]) if reply.status == 200 else None
