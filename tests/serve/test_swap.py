"""Versions swapped under load: every answer is whole, honest, from one version, and from a recent one."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from batchinfer.versions import folders
from tests.factories import LENIENT, World, imports_job
from tests.serving import PATIENCE, Reply, Server, reply_of, serving

SECONDS = 5.0
PAUSE = 0.003  # between two requests of a client: a hundred for each version do, and cores are for other tests, too
BEHIND = 3.0  # seconds that a version may still be served after the next one is out
IDS = [f"ü {number}" for number in range(20)]


@dataclass
class Load:
    """Clients that ask without a pause, and what they found wrong. published: when each version was out."""

    server: Server
    published: dict[int, float]
    wrong: list[str] = field(default_factory=list)
    seen: dict[int, int] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self, batches: bool) -> None:
        """One client. It stops at the first thing that is wrong."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        try:
            for path, body, expected in self.asks(batches):
                sent = time.monotonic()
                connection.request("POST" if body else "GET", path, body)
                reply = reply_of(connection.getresponse())
                version = int(reply.headers["batchinfer-version"])
                expected(reply, version)
                self.seen[version] = self.seen.get(version, 0) + 1
                time.sleep(PAUSE)
                if self.published.get(version + 1, sent) < sent - BEHIND:
                    self.wrong.append(
                        f"version {version} was asked {sent - self.published[version + 1]:.1f} s too late"
                    )
        except Exception as exc:  # noqa: BLE001 - a thread's failure must fail the test
            self.wrong.append(repr(exc))
        finally:
            connection.close()

    def has_seen_enough(self, version: int) -> bool:
        """Whether the test can show something: several versions, each in turn, and many answers."""
        return version > 3 and len(self.seen) > 3 and sum(list(self.seen.values())) > 300

    def asks(self, batches: bool) -> Iterator[Any]:
        """Path, body, and what the reply must be like."""
        while not self.over.is_set() and not self.wrong:
            for number, name in enumerate(IDS):
                newest = max(self.published, default=1)
                # new-7 is there from version 7 on: from then on a 404 would be a lie, and before it a hit.
                fresh = f"new-{newest + number % 3 - 1}"
                if batches:
                    names = [name, fresh, *IDS]
                    yield (
                        "/v1/jobs/shop/lookup",
                        json.dumps({"queries": [{"id": each} for each in names]}),
                        _batch(names),
                    )
                else:
                    asked = fresh if number % 4 == 0 else name
                    yield f"/v1/jobs/shop/lookup?{urlencode({'id': asked})}", None, _single(asked)


def prediction(name: str, version: int) -> str | None:
    """What a version says of an entry; None if it has none."""
    if name.startswith("new-"):
        return "new" if 1 <= int(name.removeprefix("new-")) <= version else None
    return f"{version} " + name * 50


def _single(name: str) -> Any:
    def check(reply: Reply, version: int) -> None:
        wanted = prediction(name, version)
        if wanted is None:
            assert reply.problem[:2] == (404, "miss"), (name, version)
        else:
            assert reply.status == 200, (name, version, reply)
            assert (reply.json["query"], reply.json["prediction"]) == ({"id": name}, wanted)
            assert reply.headers["content-length"] == str(len(reply.body))

    return check


def _batch(names: list[str]) -> Any:
    def check(reply: Reply, version: int) -> None:
        assert reply.status == 200
        content = reply.json
        assert content["version"] == version
        found = [result["prediction"] if result["found"] else None for result in content["results"]]
        assert found == [prediction(name, version) for name in names]

    return check


def publish(world: World, version: int) -> None:
    """Makes the next version, in which each entry says so."""
    names = [*IDS, f"new-{version}"]
    world.take_in({"id": names, "prediction": [prediction(name, version) for name in names]})
    assert world.publish().version == version


@pytest.mark.long
def test_versions_are_swapped_under_load(tmp_path: Path) -> None:
    """While a version is published every half second, no reply is anything but 200 or an honest 404, whole, and recent."""
    world = imports_job(tmp_path, {"id": IDS}, gate=LENIENT, keep_versions=2)
    publish(world, 1)
    with serving(world.data.root, tmp_path / "server", workers=2) as server:
        load = Load(server, {1: time.monotonic()})
        threads = [threading.Thread(target=load.run, args=[batches]) for batches in (False, False, True)]
        for thread in threads:
            thread.start()
        version, start = 1, time.monotonic()
        while not load.wrong and ((began := time.monotonic()) < start + SECONDS or not load.has_seen_enough(version)):
            assert began < start + PATIENCE, f"{load.seen} of {version} versions in {PATIENCE:.0f} s"
            version += 1
            publish(world, version)
            load.published[version] = time.monotonic()
            time.sleep(max(0.0, began + 0.5 - time.monotonic()))
        server.settled("shop", version)
        kept = folders.numbers(world.data)
        load.over.set()
        for thread in threads:
            thread.join()
        assert not load.wrong
        assert version > 3
        assert len(load.seen) > 3
        assert sum(load.seen.values()) > 300
        assert len(kept) < version  # old versions were removed meanwhile, but none that a worker had open
        assert server.stop() == 0
    assert "Traceback" not in server.log
