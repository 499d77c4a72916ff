"""Jobs that stand somehow without a file, rules for them, and receivers on this machine that behave as real ones do at their worst."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from batchinfer.alerts.attempts import AttemptEnd, AttemptStatus, LastAttempt
from batchinfer.alerts.rules import AlertKind, AlertRule, CommandReceiver, WebhookReceiver
from batchinfer.alerts.standing import PublishedFacts, Standing
from batchinfer.publish import build
from tests.factories import LENIENT, World, imports_job

SECRET = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"
START = datetime(2026, 1, 5, 3, tzinfo=UTC)  # a Monday
DAY = timedelta(days=1)
ALL = frozenset(AlertKind)
HOOK = {"webhook": "http://127.0.0.1:9/hook", "secret_env": "ALERTS_SECRET", "stale_after": "8d"}
RUNS = frozenset({AlertKind.FAILED, AlertKind.REFUSED})


def stale_job(folder: Path, *rules: dict[str, Any], **sections: Any) -> World:
    """A job on disk whose last run ended well nine days ago."""
    world = imports_job(folder, {"id": [1]}, gate=LENIENT, alerts=list(rules or (HOOK,)), **sections)
    world.take_in({"id": [1], "prediction": ["one"]})
    ended = datetime.now(UTC) - 9 * DAY
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(build, "now", lambda: ended.replace(tzinfo=None))
        world.run()
    content = {"run_id": 1, "finished_at": ended.isoformat(timespec="seconds")}
    (world.data.folder / "last_run.json").write_text(json.dumps(content))
    return world


def rule(url: str = "http://127.0.0.1:9/hook", kinds: frozenset[AlertKind] = ALL, **changes: Any) -> AlertRule:
    """One with a webhook, of a job that runs weekly."""
    made = AlertRule(kinds, WebhookReceiver(url, "ALERTS_SECRET"), timedelta(days=8), timedelta(days=7))
    return replace(made, **changes)


def command_rule(*words: str) -> AlertRule:
    """One with a program."""
    return rule(receiver=CommandReceiver(words))


@dataclass
class WeeklyJob:
    """A job that somebody runs, and how it stands."""

    standing: Standing = field(default_factory=lambda: Standing("shop"))
    runs: int = 0

    def ends(self, status: AttemptStatus, at: datetime, said: str = "") -> Standing:
        """A run ends at this time; one that ends well publishes a version if it says so."""
        self.runs += 1
        before = self.standing.attempt
        begun = LastAttempt(AttemptStatus.RUNNING, at)
        end = AttemptEnd(status, at, said, self.runs, self.standing.succeeded_at)
        attempt = (begun if before is None else begun.after(before)).ended(end, RUNS)
        self.standing = replace(self.standing, attempt=attempt)
        if status is AttemptStatus.DONE:
            published = (
                PublishedFacts(self.runs, at)
                if said == "new" or self.standing.published is None
                else self.standing.published
            )
            self.standing = replace(self.standing, published=published, succeeded_at=at)
        return self.standing


@dataclass
class WebReceiver:
    """What a webhook's receiver got, and how it answers. status: of the next replies; headers: of them."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@contextlib.contextmanager
def web_receiver(*statuses: int, **headers: str) -> Iterator[WebReceiver]:
    """A server on this machine that answers with these, then with 204."""
    receiver = WebReceiver(statuses=list(statuses), headers=headers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
            for name, value in receiver.headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        try:
            yield receiver
        finally:
            server.shutdown()


@contextlib.contextmanager
def hanging_receiver(trickle: bytes = b"") -> Iterator[str]:
    """A server that takes connections and never answers; or a byte of `trickle` now and then, for ever. Yields its address."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        opened: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    opened.append(connection)
                    threading.Thread(target=drip, args=[connection], daemon=True).start()

        def drip(connection: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while trickle and not over.is_set():
                    for byte in trickle:
                        connection.sendall(bytes([byte]))
                        time.sleep(0.02)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            for connection in opened:
                connection.close()
