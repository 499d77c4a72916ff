"""A server that gives answers as it is told, since the real service does not fail on demand."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

STATE = {"job": "shop", "version": 1, "problem": None, "key": [{"name": "id", "kind": "string"}]}
HIT = {"job": "shop", "query": {"id": "a"}, "prediction": "one"}
Answer = tuple[int, dict[str, str], bytes] | Literal["drop", "hang"]


class Scripted(ThreadingHTTPServer):
    """A server that gives these answers first, and from then on those of a service with one entry.

    idle: seconds after which it closes a connection that nothing comes on.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.connections = 0
        self.idle = 60.0
        self.released = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def first(self, *answers: Answer) -> None:
        self.answers[:] = answers
        self.asked.clear()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Scripted

    def setup(self) -> None:
        self.server.connections += 1
        super().setup()
        self.connection.settimeout(self.server.idle)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        answer = self.server.answers.pop(0) if self.server.answers else self._usual(body)
        if answer == "hang":
            self.server.released.wait(20)
        if isinstance(answer, str):
            self.close_connection = True
            return
        status, headers, content = answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815 - the base class calls it so

    def _usual(self, body: bytes) -> Answer:
        if body:
            results = [HIT | {"found": True, "query": query} for query in json.loads(body)["queries"]]
            content: Any = {"version": 1, "results": results}
        else:
            content = HIT if "/lookup?" in self.path else STATE
        return 200, {"Batchinfer-Version": "1"}, json.dumps(content).encode()


def problem(status: int, kind: str, detail: str, **headers: str) -> Answer:
    content = {"type": f"urn:batchinfer:{kind}", "title": "", "status": status, "detail": detail}
    return status, headers, json.dumps(content).encode()
