"""The access log: one line of JSON for each request, on stdout. It names no query: what people look up is their affair."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from typing import Any


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
                "key": _key_id(scope["headers"]),
            }
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


def _key_id(headers: Any) -> str | None:
    """The public part of the key that was sent, whether it was right or not."""
    given = next((value for name, value in headers if name == b"authorization"), b"").decode("latin-1")
    parts = given.removeprefix("Bearer ").split("_", 2)
    return parts[1][:16] if len(parts) == 3 and parts[0] == "bi" else None  # noqa: PLR2004
