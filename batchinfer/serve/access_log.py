"""The access log: one line of JSON for each request, on stdout. It names no query, since queries can be private.

Serving does not wait for it: see `core.outlet`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from batchinfer.core.outlet import STDOUT
from batchinfer.serve.auth import bearer_key

MAX_PATH = 300  # characters


def write(
    client: str, method: str, path: str, authorization: str | None, status: int, size: int, seconds: float
) -> None:
    """Writes a line.

    client: its address.
    authorization: the header; of its key the public part is logged.
    size: of the reply's body, in bytes.
    """
    key = bearer_key(authorization)
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "client": client,
        "method": method,
        "path": path[:MAX_PATH],
        "status": status,
        "bytes": size,
        "seconds": round(seconds, 6),
        "key": key[0][:16] if key else None,
    }
    STDOUT.write(json.dumps(line))
