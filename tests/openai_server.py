"""A scripted server with an OpenAI-compatible API, for faults that a real one cannot be made to have.

It echoes: the text of an answer is that of the prompt. Its tokens are those of `tests.tiny`: a token for each byte.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROBE = [{"role": "user", "content": "Say yes."}]  # by which a server of chats is tried
FORM_PROBE = "Say hello."  # by which it is tried whether it holds an answer to a form
HTML = b"<html><body>Please log in.</body></html>"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a reply.

    status, content, headers: of what is sent instead of the answer. half: whether only half of it is. late: seconds before
    the answer is sent. slow: seconds between two bytes of it.
    """

    status: int = 200
    content: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    half: bool = False
    late: float = 0.0
    slow: float = 0.0


BUSY = Fault(503, b'{"error": {"message": "overloaded"}}')
PAGE = Fault(200, HTML, {"content-type": "text/html"})
HALF = Fault(half=True)


@dataclass
class ScriptedServer:
    """What the server does.

    models: cards that it lists. key: that it wants; None for none. answer: changes an answer before it is sent.
    fault: of a request for an answer, by how many came before it and its content; None to answer it.
    longest: what it calls the limit of an answer's tokens. unknown: parameters that its chats do not take.
    unfinished: what it says of chats that come to no end within their limit. look_fault: what goes wrong
    with a look at a path. holds: whether it holds answers to a form. form_fault: what goes wrong with a probe of that,
    by its content.
    asked: the content of each request for an answer, probes left out. probes: how many of those there were.
    """

    models: list[dict[str, Any]]
    key: str | None = None
    answer: Callable[[dict[str, Any]], dict[str, Any]] = lambda reply: reply
    fault: Callable[[int, dict[str, Any]], Fault | None] = lambda _number, _content: None
    longest: str = "max_tokens"
    unknown: tuple[str, ...] = ()
    unfinished: str = ""
    look_fault: Callable[[str], Fault | None] = lambda _path: None
    holds: bool = True
    form_fault: Callable[[dict[str, Any]], Fault | None] = lambda _content: None
    asked: list[dict[str, Any]] = field(default_factory=list)
    probes: int = 0
    most: int = 0  # that were in flight at a time
    port: int = 0
    _in_flight: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _http: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Begins to listen, at the port that it had before if it was stopped."""
        self._http = _Http(("127.0.0.1", self.port), self.handler())
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Listens no more."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
        self._http = None

    def handler(self) -> type[BaseHTTPRequestHandler]:
        """What answers a request."""
        return handler(self)

    def take(self, content: dict[str, Any]) -> Fault | None:
        """Counts a request for an answer; what is to go wrong with it."""
        with self._lock:
            self._in_flight += 1
            self.most = max(self.most, self._in_flight)
            self.asked.append(content)
            return self.fault(len(self.asked) - 1, content)

    def done(self) -> None:
        """A request was answered."""
        with self._lock:
            self._in_flight -= 1


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: clients that went away are part of the script."""


@contextlib.contextmanager
def serving(**script: Any) -> Iterator[ScriptedServer]:
    """A server that follows a script, until the end."""
    server = ScriptedServer(**script)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def card(name: str, *, vllm: bool = True, **more: Any) -> dict[str, Any]:
    """A model's entry in the list of a server."""
    return {"id": name, "object": "model", "owned_by": "vllm" if vllm else "somebody", **more}


def completion(content: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a completion, whose prompts are tokens or a text."""
    prompt = content["prompt"]
    prompts = [list(prompt.encode())] if isinstance(prompt, str) else [prompt] if isinstance(prompt[0], int) else prompt
    choices = [_choice(number, tokens, content) for number, tokens in enumerate(prompts)]
    usage = {"prompt_tokens": sum(map(len, prompts)), "completion_tokens": 1, "total_tokens": 1}
    return {"object": "text_completion", "choices": choices, "usage": usage}


def _choice(number: int, tokens: list[int], content: Mapping[str, Any]) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": number, "text": bytes(tokens).decode(), "finish_reason": "stop"}
    if content.get("return_token_ids"):
        choice["prompt_token_ids"] = tokens
    if (wanted := content.get("logprob_token_ids")) is not None:
        likely = {f"token_id:{token}": -1.0 - place for place, token in enumerate(wanted)}
        choice["logprobs"] = {"top_logprobs": [likely]}
    if content.get("prompt_logprobs") is not None:
        choice["prompt_logprobs"] = [None, *({str(token): {"logprob": -token / 1000}} for token in tokens[1:])]
    return choice


def chat_completion(content: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to chat turns: the last of them."""
    text = content["messages"][-1]["content"]
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if content.get("logprobs"):
        top = [{"token": token, "logprob": -1.0 - place} for place, token in enumerate("PNX")]
        choice["logprobs"] = {"content": [{"token": "P", "logprob": -1.0, "top_logprobs": top}]}
    return {"object": "chat.completion", "choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}


def _is_form_probe(content: Mapping[str, Any]) -> bool:
    messages, prompt = content.get("messages"), content.get("prompt")
    text = bytes(prompt).decode() if isinstance(prompt, list) and isinstance(prompt[0], int) else ""
    return messages == [{"role": "user", "content": FORM_PROBE}] or FORM_PROBE in text


def _held(content: Mapping[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    """The reply to a probe of a form, with an answer that has it."""
    wanted = content.get("structured_outputs") or {"json": content["response_format"]["json_schema"]["schema"]}
    word = wanted["json"]["properties"]["word"]["enum"][0] if "json" in wanted else None
    text, choice = "kiwi-123" if word is None else json.dumps({"word": word}), reply["choices"][0]
    if "message" in choice:
        choice["message"]["content"] = text
    else:
        choice["text"] = text
    return reply


def handler(server: ScriptedServer) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - a class with small methods
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the library
            pass

        def parse_request(self) -> bool:
            self.close_connection = server._http is None  # also of one that was open before
            return not self.close_connection and super().parse_request()

        def do_GET(self) -> None:
            if (fault := server.look_fault(self.path)) is not None:
                self.send(fault.status, fault.content, fault.headers, half=fault.half)
            else:
                self.send(*self._listed())

        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if not self.is_welcome():
                self.send(401, b"{}")
            elif content.get("return_token_ids") or content.get("messages") == PROBE:
                self._probed(content)
            elif _is_form_probe(content):
                server.probes += 1
                reply = chat_completion(content) if "messages" in content else completion(content)
                self._answer(_held(content, reply) if server.holds else reply, server.form_fault(content))
            else:
                fault = server.take(content)
                try:
                    self._answer(chat_completion(content) if "messages" in content else completion(content), fault)
                finally:
                    server.done()

        def _probed(self, content: dict[str, Any]) -> None:
            server.probes += 1
            if server.longest not in content:
                self._refuse(f"Unsupported parameter: use '{server.longest}' instead.")
                return
            if unknown := [name for name in server.unknown if name in content]:
                self._refuse(f"Unrecognized request argument supplied: {unknown[0]}")
                return
            if server.unfinished and "messages" in content:
                self._refuse(server.unfinished)
                return
            reply = chat_completion(content) if "messages" in content else completion(content)
            self.send(200, json.dumps(server.answer(reply)).encode())

        def _refuse(self, said: str) -> None:
            self.send(400, json.dumps({"error": {"message": said}}).encode())

        def is_welcome(self) -> bool:
            return server.key is None or self.headers.get("authorization") == f"Bearer {server.key}"

        def _listed(self) -> tuple[int, bytes]:
            if not self.is_welcome():
                return 401, b'{"error": {"message": "no such key"}}'
            if self.path != "/v1/models":
                return 404, b'{"detail": "Not Found"}'
            return 200, json.dumps({"object": "list", "data": server.models}).encode()

        def _answer(self, reply: dict[str, Any], fault: Fault | None) -> None:
            if fault is not None and fault.late:
                time.sleep(fault.late)
            elif fault is not None and not (fault.half or fault.slow):
                self.send(fault.status, fault.content, fault.headers)
                return
            self.send(
                200,
                json.dumps(server.answer(reply)).encode(),
                half=fault is not None and fault.half,
                slow=fault.slow if fault else 0.0,
            )

        def send(
            self, status: int, content: bytes, headers: Mapping[str, str] | None = None, *, half: bool = False,
            slow: float = 0.0,
        ) -> None:  # fmt: skip
            self.send_response(status)
            for name, value in {"content-type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            while slow and content:
                self.wfile.write(content[:1])
                self.wfile.flush()
                content = content[1:]
                time.sleep(slow)
            self.wfile.write(content[: len(content) // 2] if half else content)
            if half:
                self.close_connection = True

    return Handler
