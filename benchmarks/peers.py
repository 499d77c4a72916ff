"""What the lookup service is measured against: ASGI applications under the same server, with the same data.

fixed      a bare callable with one reply, as long as a hit's: the most that Python can do on this server
redis      Starlette, and the bodies in Redis behind a Unix socket
duckdb     Starlette, and a DuckDB file with an index on the key

Each is told by environment variables where its data is.
"""

from __future__ import annotations

import os
from typing import Any


def fixed() -> Any:
    """BENCH_BODY: the file with the reply."""
    from pathlib import Path

    content = Path(os.environ["BENCH_BODY"]).read_bytes()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    body = {"type": "http.response.body", "body": content}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        await send(start)
        await send(body)

    return app


def redis() -> Any:
    """BENCH_SOCKET: Redis' Unix socket; keys are those of the lookup."""
    import redis.asyncio as client  # type: ignore[import-not-found,unused-ignore]
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    pool = client.Redis(unix_socket_path=os.environ["BENCH_SOCKET"])

    async def lookup(request: Request) -> Response:
        found = await pool.get(request.query_params["id"])
        return Response(found or b"", 200 if found else 404, media_type="application/json")

    return Starlette(routes=[Route("/v1/jobs/{job}/lookup", lookup)])


def duckdb() -> Any:
    """BENCH_DUCKDB: a file with the table bodies(id VARCHAR PRIMARY KEY, body BLOB)."""
    import duckdb as engine
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    db = engine.connect(os.environ["BENCH_DUCKDB"], read_only=True)

    async def lookup(request: Request) -> Response:
        rows = db.execute("SELECT body FROM bodies WHERE id = ?", [request.query_params["id"]]).fetchall()
        return Response(rows[0][0] if rows else b"", 200 if rows else 404, media_type="application/json")

    return Starlette(routes=[Route("/v1/jobs/{job}/lookup", lookup)])
