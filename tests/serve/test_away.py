"""A data folder that goes away under load, in every way that one can: what is open is served on, and new versions once it is back."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from batchinfer import Lookup
from tests.serving import Server, eventually, name_things, names_job, reply_of, serving

SECONDS = 10  # after which a client gives up
PATHS = (
    "/v1/jobs/shop/lookup?thing=covid&language=en", "/v1/jobs/shop/match?text=a+jab+for+all", "/v1/jobs/shop", "/v1/jobs",
    "/readyz", "/metrics",
)  # fmt: skip
MISS = "/v1/jobs/shop/lookup?thing=nothing&language=en"


@dataclass
class Clients:
    """They ask without a pause, and stop at the first answer that is not right."""

    server: Server
    answers: int = 0
    wrong: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=SECONDS)
        with contextlib.closing(connection):
            while not self.over.is_set():
                for path, status in [*((path, 200) for path in PATHS), (MISS, 404)]:
                    if found := self._fault(connection, path, status):
                        self.wrong.append(f"{path}: {found}")
                        return
                    self.answers += 1
                self.over.wait(0.02)

    def _fault(self, connection: http.client.HTTPConnection, path: str, status: int) -> str | None:
        """What is wrong with an answer."""
        try:
            connection.request("GET", path)
            reply = reply_of(connection.getresponse())
        except OSError as exc:
            return repr(exc)
        right = reply.status == status and (b'"jab' in reply.body or path not in PATHS[:2])
        return None if right else f"{reply.status} {reply.body[:200]!r}"

    def go_on(self) -> None:
        """Waits until they have got so many more answers."""
        before = self.answers
        eventually(lambda: self.wrong or self.answers > before + 100, self.server.said)
        assert not self.wrong


@contextlib.contextmanager
def asking(server: Server) -> Iterator[Clients]:
    """Two clients, while something happens."""
    clients = Clients(server)
    threads = [threading.Thread(target=clients.run) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield clients
    finally:
        clients.over.set()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def renamed(folder: Path) -> Iterator[None]:
    """Somebody moved it; later it is moved back."""
    away = folder.parent.parent / "away"  # beside the other jobs it would be one more
    folder.rename(away)
    yield
    away.rename(folder)


@contextlib.contextmanager
def emptied(folder: Path) -> Iterator[None]:
    """An empty folder is in its place, as below a disk that is not mounted."""
    with renamed(folder):
        folder.mkdir()
        yield
        subprocess.run(["rm", "-r", str(folder)], check=True)  # misses may have been written meanwhile


@contextlib.contextmanager
def mounted_over(folder: Path) -> Iterator[None]:
    """Another disk hides it."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "batchinfer-test", str(folder)]
    try:
        allowed = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    yield
    if allowed:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


WAYS: list[Callable[[Path], contextlib.AbstractContextManager[None]]] = [renamed, emptied, mounted_over]


@pytest.mark.long
def test_what_is_open_is_served_on(tmp_path: Path) -> None:
    """No request fails or hangs, of a service and of a Lookup in another process, and both take the next version."""
    world = names_job(tmp_path / "disk" / "home", "shop", {("covid", "en"): ["jab"]})
    with (
        serving(world.data.root, tmp_path / "server", workers=2) as server,
        Lookup(world.data.root, "shop") as lookup,
        asking(server) as clients,
    ):
        assert lookup.get(thing="covid", language="en") is not None
        version = 1
        for way, folder in [*((way, world.data.root) for way in WAYS), (emptied, world.data.folder)]:
            said = server.log.count("is missing")
            with way(folder):
                eventually(lambda said=said: server.log.count("is missing") >= said + 2, server.said)  # type: ignore[misc]
                clients.go_on()
                assert lookup.get(thing="covid", language="en") is not None
                assert [match["term"] for match in lookup.match("a jab")["matches"]] == ["jab"]
            version += 1
            name_things(world, {("covid", "en"): ["jab", f"jab {version}"]})
            server.settled("shop", version)
            eventually(lambda version=version: lookup.version == version)  # type: ignore[misc]
    assert "Traceback" not in server.log
    assert "died" not in server.log
