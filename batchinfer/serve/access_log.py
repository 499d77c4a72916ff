"""The access log: one line of JSON for each request, on stdout. It names no query: what people look up is their affair."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

from batchinfer.serve.auth import bearer_key

MOST_PATH = 300  # characters


def write(
    client: str, method: str, path: str, authorization: str | None, status: int, size: int, seconds: float
) -> None:
    """client: its address; size: bytes of the body; authorization: the header, of whose key the public part is told."""
    key = bearer_key(authorization)
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "client": client,
        "method": method,
        "path": path[:MOST_PATH],
        "status": status,
        "bytes": size,
        "seconds": round(seconds, 6),
        "key": key[0][:16] if key else None,
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
