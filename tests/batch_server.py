"""The scripted server with a batch API beside: files, and batches that are done after some looks."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.openai_server import Fault, ScriptedServer, chat_completion, handler


@dataclass
class BatchServer(ScriptedServer):
    """What the server does.

    looks: how often a batch is in progress when it is looked at. ends: the fields of a batch at its end, by its number.
    line: changes a line of an output, or leaves it out, by the batch's number and the request.
    trouble: what goes wrong with what is asked for, by its path.
    lost: how many replies to a new batch do not reach who made it. knows: whether it remembers its batches.
    """

    looks: int = 1
    ends: Callable[[int], dict[str, Any]] = lambda _number: {"status": "completed"}
    line: Callable[[int, dict[str, Any]], dict[str, Any] | None] = lambda _number, line: line
    trouble: Callable[[str], Fault | None] = lambda _path: None
    lost: int = 0
    knows: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    polls: int = 0

    def handler(self) -> type[BaseHTTPRequestHandler]:
        return _handler(self)

    def store(self, content: bytes) -> str:
        """Keeps a file; returns its name."""
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    def requests(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """What a batch asks."""
        return [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]

    def rows(self) -> list[str]:
        """The keys of all requests in batches, each as often as it is paid."""
        return [each["custom_id"] for batch in self.batches.values() for each in self.requests(batch)]

    def make(self, content: dict[str, Any]) -> dict[str, Any]:
        """A new batch."""
        name = f"batch-{len(self.batches)}"
        self.batches[name] = {"id": name, "status": "in_progress", "left": self.looks, **content}
        return self.batches[name]

    def look(self, name: str) -> dict[str, Any]:
        """A batch as it is now; each look brings it nearer to its end."""
        self.polls += 1
        batch = self.batches[name]
        batch["left"] -= 1
        if batch["left"] < 0 and batch["status"] == "in_progress":
            number = int(name.partition("-")[2])
            batch |= self.ends(number)
            if batch["status"] != "failed":
                made = [self._line(number, each) for each in self.requests(batch)]
                lines = [json.dumps(line) for line in made if line is not None]
                batch["output_file_id"] = self.store("\n".join(lines).encode())
        return batch

    def _line(self, number: int, request: dict[str, Any]) -> dict[str, Any] | None:
        body = chat_completion(request["body"])
        line = {"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}
        return self.line(number, line)


@contextlib.contextmanager
def serving_batches(**script: Any) -> Iterator[BatchServer]:
    """A server that follows a script, until the end."""
    server = BatchServer(**script)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _handler(server: BatchServer) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - a class with small methods
    base: Any = handler(server)

    class Handler(base):  # type: ignore[misc]
        def do_GET(self) -> None:  # noqa: N802 - its name in the library
            path = self.path.removeprefix("/v1").partition("?")[0]
            if not self.is_welcome() or not path.startswith(("/batches", "/files")):
                super().do_GET()
            elif (fault := server.trouble(path)) is not None:
                self.send(fault.status, fault.content, fault.headers)
            elif path == "/batches":
                self._reply({"data": list(reversed(server.batches.values())), "has_more": False})
            elif found := re.fullmatch("/files/(.+)/content", path):
                self.send(200, server.files[found[1]])
            elif server.knows and (name := path.rpartition("/")[2]) in server.batches:
                self._reply(server.look(name))
            else:
                self.send(404, b'{"error": {"message": "no such batch"}}')

        def do_POST(self) -> None:  # noqa: N802
            if self.path not in ("/v1/files", "/v1/batches"):
                super().do_POST()
                return
            body = self.rfile.read(int(self.headers["content-length"]))
            if not self.is_welcome():
                self.send(401, b"{}")
            elif self.path == "/v1/files":
                boundary = b"--" + self.headers["content-type"].partition("boundary=")[2].encode()
                [part] = [part for part in body.split(boundary) if b"filename=" in part]
                self._reply({"id": server.store(part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n"))})
            elif json.loads(body)["input_file_id"] not in server.files:
                self.send(400, b'{"error": {"message": "No such file."}}')
            else:
                made = server.make(json.loads(body))
                server.lost -= 1
                self.send(200, json.dumps(made).encode(), half=server.lost >= 0)

        def _reply(self, content: Any) -> None:
            self.send(200, json.dumps(content).encode())

    return Handler
