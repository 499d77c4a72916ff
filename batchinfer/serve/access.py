"""The access log: one line of JSON for each request, on stdout. It names no query: what people look up is their affair."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from typing import Any

from batchinfer.serve.auth import sent


class AccessLog:
    """Wraps the service."""

    def __init__(self, service: Any) -> None:
        self._service = service

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._service(scope, receive, send)
            return
        began, status, size = time.perf_counter(), 500, 0

        async def noting(message: Any) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self._service(scope, receive, noting)
        finally:
            line = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "client": (scope.get("client") or [None])[0],
                "method": scope["method"],
                "path": scope["path"][:300],
                "status": status,
                "bytes": size,
                "seconds": round(time.perf_counter() - began, 6),
                "key": key[0][:16] if (key := sent(scope["headers"])) else None,  # its public part, right or wrong
            }
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
