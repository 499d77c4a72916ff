"""The whole way of a miss: asked over HTTP, recorded beside the job, asked of the model by the next run, and then served."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batchinfer.misses import log
from batchinfer.versions.lookups import read_lookups
from tests.factories import LENIENT, World, model_job
from tests.serving import Server, eventually, serving

LIST = {"path": "queries.parquet", "key": ["text"], "include_misses": {"at_least": 3}}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A published job of one row that takes in what was asked for three times."""
    made = model_job(tmp_path, {"text": ["tea"]}, input=LIST, gate=LENIENT)
    made.answer(lambda row: f"about {row['text']}")
    made.publish()
    return made


@pytest.mark.long
def test_a_miss_feeds_back(world: World, tmp_path: Path) -> None:
    """What was asked for three times is answered by the next version, what was asked for twice is not."""
    with serving(world.data.root, tmp_path / "server") as server:
        for text in ["milk"] * 3 + ["rum"] * 2:
            assert server.lookup("shop", text=text).status == 404
        for _ in range(7):
            assert server.lookup("shop", text="tea").status == 200
    assert read_lookups(world.data) == {1: 7}
    world.answer(lambda row: f"about {row['text']}")
    report = world.publish()
    assert (report.misses, report.entries) == (1, 2)
    assert json.loads(world.get(text="milk") or b"")["prediction"] == "about milk"
    assert world.get(text="rum") is None


def another(server: Server, collector: int) -> bool:
    """Whether the server has a collector that is not this process."""
    return server.children(collector=True) not in ([], [collector])


@pytest.mark.long
def test_a_collector_that_dies_is_started_again(world: World, tmp_path: Path) -> None:
    """What was asked before and after the collector was killed, twice, is recorded; the log says that it was."""
    with serving(world.data.root, tmp_path / "server") as server:
        for text in ("milk", "rum"):
            assert server.lookup("shop", text=text).status == 404
            [killed] = eventually(lambda: server.children(collector=True))
            os.kill(killed, signal.SIGKILL)
            eventually(partial(another, server, killed), server.said)
            assert server.lookup("shop", text="tea").status == 200
        assert server.lookup("shop", text="tea, please").status == 404
        assert server.log.count("The collector of misses ended with the exit code -9: it is started again.") == 2
    recorded = {query for path in log.files(world.data) for query in pq.read_table(path)["query"].to_pylist()}
    assert read_lookups(world.data) == {1: 2}, "each collector goes on from what the one before counted"
    assert recorded == {'{"text":"milk"}', '{"text":"rum"}', '{"text":"tea, please"}'}


@pytest.mark.parametrize("off", ["for the service", "in the job file"])
@pytest.mark.long
def test_recording_can_be_turned_off(world: World, tmp_path: Path, off: str) -> None:
    """With --no-misses, or serve.misses: false in the job file, nothing of a miss is stored."""
    options = ["--no-misses"] if off == "for the service" else []
    if not options:
        world.changed(serve={"misses": False}).publish()
    with serving(world.data.root, tmp_path / "server", *options) as server:
        assert server.lookup("shop", text="milk").status == 404
    assert not list(world.data.misses.glob("*.parquet"))
