"""Versions that are damaged while they are served: no worker dies, nothing wrong is answered, and what is whole is served on."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from batchinfer.core.home import JobData
from batchinfer.match.version import MATCHER
from batchinfer.versions.folders import folder_of
from batchinfer.versions.layout import INDEX, LOOKUP
from batchinfer.versions.pointers import PIN
from tests.damage import Damage, as_before, point, rot, without_index
from tests.serve.jobs import prediction
from tests.serving import PATIENCE, eventually, name_things, names_job, serving


@pytest.mark.parametrize("size", [0, 8192, 20000])
@pytest.mark.long
def test_a_file_that_is_cut_under_the_service(data: JobData, tmp_path: Path, size: int) -> None:
    """If somebody truncates the very file that is being served, no worker dies, and the newest whole version is served."""
    with serving(data.root, tmp_path / "server") as server:
        workers = server.children()
        os.truncate(folder_of(data, 3) / LOOKUP, size)
        answers = {server.lookup("shop", id="b").status for _ in range(20)}
        assert answers <= {200, 503}
        eventually(lambda: prediction(server) == "2", server.said)
        state = server.get("/v1/jobs/shop").json
        assert (state["version"], state["degraded"]) == (2, True)
        assert "lookup.lmdb is truncated or corrupt" in state["problem"]
        assert server.children() == workers
        assert "Traceback" not in server.log


@pytest.mark.parametrize("older", [None, without_index, as_before], ids=["now", "without index", "without checksums"])
@pytest.mark.long
def test_a_version_that_rots_under_the_service(data: JobData, tmp_path: Path, older: Damage | None) -> None:
    """Bits that flip in an open version are never sent on: it is left for the newest whole one, and that is said once."""
    if older is not None:
        older(folder_of(data, 3))
        point(data, 3)
    with serving(data.root, tmp_path / "server", workers=2) as server:
        workers = server.children()
        rot(folder_of(data, 3) / LOOKUP)
        deadline, wrong = time.monotonic() + PATIENCE, list[tuple[int, bytes]]()
        while server.version("shop") != 2 or server.metric_of_each("batchinfer_degraded", job="shop") != {1}:
            assert time.monotonic() < deadline, server.log
            for id_ in ("a", "b"):
                reply = server.lookup("shop", id=id_)
                if reply.status not in (200, 503) or (
                    reply.status == 200 and len(reply.json["prediction"]) not in (1, 5000)
                ):
                    wrong.append((reply.status, reply.body))
            reply = server.batch("shop", [{"id": "a"}, {"id": "b"}])
            assert reply.status == 503 or all(result["found"] for result in reply.json["results"])
        assert older is as_before or not wrong
        state = server.get("/v1/jobs/shop").json
        assert (state["degraded"], prediction(server)) == (True, "2")
        assert "lookup.lmdb is damaged" in state["problem"]
        assert server.children() == workers
        assert server.log.count("lookup.lmdb is damaged") == 2  # once for each worker
        assert "Traceback" not in server.log


@pytest.mark.long
def test_an_index_that_is_damaged_under_the_service(data: JobData, tmp_path: Path) -> None:
    """Look-ups can do without: all workers go on with the one version there is, also one that starts now, and it is degraded."""
    for number in (1, 2):
        shutil.rmtree(folder_of(data, number))
    with serving(data.root, tmp_path / "server", workers=2) as server:
        answer = prediction(server)
        os.truncate(folder_of(data, 3) / INDEX, 100)
        eventually(lambda: server.metric_of_each("batchinfer_degraded", job="shop") == {1}, server.said)
        killed = min(server.children())
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: len(set(server.children()) - {killed}) == 2, server.said)
        server.settled("shop", 3)
        for _ in range(20):
            assert (prediction(server), server.lookup("shop", id="z").status) == (answer, 404)
        state = server.get("/v1/jobs/shop").json
        assert (state["version"], state["degraded"]) == (3, True)
        assert "lookup.index is truncated or corrupt" in state["problem"]


@pytest.mark.parametrize("damage", ["cut", "rotten"])
@pytest.mark.long
def test_a_matcher_that_is_damaged_under_the_service(tmp_path: Path, damage: str) -> None:
    """No worker dies, nothing that is not so is found, and the version before is served and matched."""
    world = names_job(tmp_path / "home", "names", {("cat", "en"): ["cat", "kitten"], ("dog", "en"): ["dog"]})
    name_things(world, {("cat", "en"): ["cat", "kitten"], ("dog", "en"): ["dog"], ("cow", "en"): ["cow"]})
    path = folder_of(world.data, 2) / MATCHER
    with serving(world.data.root, tmp_path / "server") as server:
        workers = server.children()
        if damage == "cut":
            os.truncate(path, 10)
        else:
            path.write_bytes(path.read_bytes().replace(b"cat", b"rat").replace(b"dog", b"dig"))  # of the same inode
        reply = server.match("names", "a dog and a cat")
        assert reply.status == 503 or [each["concept"] for each in reply.json["matches"]] == ["dog", "cat"]
        eventually(lambda: server.version("names") == 1, server.said)
        assert [each["concept"] for each in server.match("names", "a dog and a cow").json["matches"]] == ["dog"]
        assert server.get("/v1/jobs/names").json["degraded"] is True
        assert server.children() == workers
        assert "Traceback" not in server.log


@pytest.mark.long
def test_a_pinned_version_that_rots_is_not_replaced(data: JobData, tmp_path: Path) -> None:
    """What is whole of it is served, and the rest refused: another version is not what the operator wanted."""
    point(data, 2, name=PIN)
    with serving(data.root, tmp_path / "server") as server:
        assert prediction(server) == "2"
        rot(folder_of(data, 2) / LOOKUP)
        eventually(lambda: server.get("/v1/jobs/shop").json["degraded"], server.said)
        assert prediction(server) == "2"  # it was read while it was whole
        refused = server.lookup("shop", id="b").problem
        assert refused[:2] == (503, "damaged")
        assert "ask again in a moment" in refused[2]
        assert "What is whole of version 2 is served." in server.log
        (data.folder / PIN).unlink()
        eventually(lambda: prediction(server) == "3", server.said)
