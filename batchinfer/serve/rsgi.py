"""Where granian hands requests over: single look-ups go straight to their job's route, all else to the ASGI application.

RSGI, granian's own interface, makes no dictionaries and lists of a request, and takes an answer in one call, so a look-up
takes less of a worker's time than through ASGI (docs/performance.md).
"""

from __future__ import annotations

import asyncio
import gc
import sys
from time import perf_counter
from typing import Any

from granian.rsgi import ProtocolClosed, ProtocolError  # type: ignore[attr-defined]

from batchinfer.core.garbage import collect_as_usual
from batchinfer.serve import access_log
from batchinfer.serve.app import Service, Settings
from batchinfer.serve.beside import SWITCH_SECONDS
from batchinfer.serve.lookup import LookupRoute
from batchinfer.serve.problems import Reply
from batchinfer.serve.pulses import Pulses
from batchinfer.serve.sending import LARGE
from batchinfer.serve.supervisor import end_at_once, restore


class RsgiApp:
    """One worker's service, as granian calls it."""

    def __init__(self, settings: Settings, pulses: Pulses) -> None:
        """pulses: where the main process sees that this worker gets on."""
        self._pulses = pulses
        self._service = Service(settings)
        self._lifespan = self._service.lifespan()
        self._logged = settings.access_log

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called before the first connection is taken."""
        sys.setswitchinterval(SWITCH_SECONDS)
        handlers = end_at_once()
        loop.run_until_complete(self._lifespan.__aenter__())
        # What is there by now stays: the collector need not look at it again and again, and a page is less often copied.
        gc.collect()
        gc.freeze()
        collect_as_usual()
        loop.call_soon(restore, handlers)
        loop.call_soon(self._pulses.beat, loop)

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called when the last request was answered."""
        loop.run_until_complete(self._lifespan.__aexit__(None, None, None))

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """One request."""
        began = perf_counter()
        route = self._service.lookup_route(scope.path) if scope.method in ("GET", "HEAD") else None
        if route is None:
            with self._service.doorkeeper.serving(scope.client):
                answer = await self._through_asgi(scope, protocol)
        else:
            query = scope.query_string.encode()
            answer = route.answer(query, scope.headers.get) or await self._large(route, query, scope)
        seconds = perf_counter() - began
        status, headers, body = answer = self._service.sender.admitted(answer) if route is not None else answer
        if len(body) < LARGE or scope.method == "HEAD":
            protocol.response_bytes(status, headers, body)  # for HEAD, and with 304, granian leaves the body out
        else:
            serving = self._service.doorkeeper.serving
            with serving(scope.client):  # until it is being read
                await self._service.sender.send(scope.client, protocol, answer, serving(scope.client))
        if route is not None:
            route.observe(status, seconds)
        if self._logged:
            client = scope.client.rpartition(":")[0]
            key = scope.headers.get("authorization")
            access_log.write(client, scope.method, scope.path, key, status, len(body), seconds)

    async def _large(self, route: LookupRoute, query: bytes, scope: Any) -> Reply:
        """The answer to a single look-up that takes more than a moment."""
        with self._service.doorkeeper.serving(scope.client):
            return await route.answer_large(query, scope.headers.get, self._service.lookups)

    async def _through_asgi(self, scope: Any, protocol: Any) -> Reply:
        """What the ASGI application answers."""
        status, headers, parts = 500, [], []
        pieces = protocol.__aiter__()

        async def receive() -> dict[str, Any]:
            try:
                with self._service.doorkeeper.awaiting(scope.client):
                    return {"type": "http.request", "body": await anext(pieces), "more_body": True}
            except StopAsyncIteration:
                return {"type": "http.request", "body": b"", "more_body": False}
            except (ProtocolClosed, ProtocolError):
                return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
            else:
                parts.append(message.get("body", b""))

        await self._service(_asgi(scope), receive, send)
        return status, headers, b"".join(parts)


def _asgi(scope: Any) -> dict[str, Any]:
    """A request as ASGI has it."""
    client, _, port = scope.client.rpartition(":")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": scope.http_version,
        "method": scope.method,
        "scheme": scope.scheme,
        "path": scope.path,
        "raw_path": scope.path.encode(),
        "query_string": scope.query_string.encode(),
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in scope.headers.items()],
        "client": (client, int(port) if port.isdigit() else 0),
        "server": None,
    }
