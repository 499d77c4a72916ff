"""Misses are counted by a worker in bounded memory, and spooled into small files."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from batchinfer.errors import StoreError
from batchinfer.misses import collector
from batchinfer.misses import counter as counting
from batchinfer.misses.counter import MissCounter, read_spooled, spooled
from tests.misses.counts import counted
from tests.tiny import ROOT


def test_a_miss_is_counted_once_for_each_time(tmp_path: Path) -> None:
    """What was asked twice has the count 2 in the spooled file, and the counter is empty afterwards."""
    before = datetime.now(UTC)
    counter = counted([("Ulm",), ("Bonn",), ("Ulm",)])
    counter.spool(tmp_path)
    [path] = spooled(tmp_path)
    read = read_spooled(path)
    assert {(miss.query, miss.count) for miss in read} == {('{"text":"Ulm"}', 2), ('{"text":"Bonn"}', 1)}
    assert all(before <= miss.first_seen <= miss.last_seen <= datetime.now(UTC) for miss in read)
    assert (len(counter), counter.dropped) == (0, 0)
    counter.spool(tmp_path)
    assert spooled(tmp_path) == [path], "nothing counted, nothing written"


def test_a_counter_is_bounded(tmp_path: Path) -> None:
    """Of more different queries than fit, the first are counted on and the others only as dropped."""
    counter = counted([(number,) for number in range(counting.MOST_QUERIES + 500)] + [(7,)])
    assert (len(counter), counter.dropped) == (counting.MOST_QUERIES, 500)
    counter.spool(tmp_path)
    [path] = spooled(tmp_path)
    assert {miss.query: miss.count for miss in read_spooled(path)}['{"text":7}'] == 2


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("x" * 1_000_000, id="a million letters"),
        pytest.param("é" * 600, id="too many bytes"),
        pytest.param("\ud800", id="half a character"),
        pytest.param(float("nan"), id="no number"),
        pytest.param(float("inf"), id="infinity"),
        pytest.param(10**5000, id="an endless integer"),
    ],
)
def test_what_cannot_be_kept_is_dropped(tmp_path: Path, value: Any) -> None:
    """A query that is too long, or that no list could hold, is counted as dropped and harms no other."""
    counter = counted([(value,), (value,), ("fine",)])
    counter.spool(tmp_path)
    [path] = spooled(tmp_path)
    assert [(miss.query, miss.count) for miss in read_spooled(path)] == [('{"text":"fine"}', 1)]
    assert counter.dropped == 2


def test_counting_goes_on_while_another_thread_spools(tmp_path: Path) -> None:
    """A counter that is spooled again and again beside a thread that adds to it raises nothing and loses next to nothing."""
    counter, adding = MissCounter(("text",)), threading.Event()

    def spool() -> None:
        while not adding.is_set():
            counter.spool(tmp_path)
        counter.spool(tmp_path)

    with ThreadPoolExecutor(1) as pool:
        spooling = pool.submit(spool)
        for number in range(100_000):
            counter.add((number % 500,))
        adding.set()
        spooling.result()
    files = spooled(tmp_path)
    total = sum(miss.count for path in files for miss in read_spooled(path))
    assert 100_000 - len(files) <= total + counter.dropped <= 100_000, "at most one is lost in each spool"


def test_what_cannot_be_spooled_is_kept(tmp_path: Path) -> None:
    """If the spool folder cannot be written, one sentence says so, and the counts come with the next file."""
    place = tmp_path / "spool"
    place.write_text("in the way", encoding="utf-8")
    counter = counted([("Ulm",)])
    with pytest.raises(StoreError, match=r"spool.* cannot be written: .*kept in memory"):
        counter.spool(place)
    counter.add(("Ulm",))
    place.unlink()
    counter.spool(place)
    [path] = spooled(place)
    assert [(miss.query, miss.count) for miss in read_spooled(path)] == [('{"text":"Ulm"}', 2)]


def test_the_last_spool_waits_for_the_one_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that spool at once take turns: what the first could not write is written by the second, once."""
    counter, writing, go_on = counted([("Ulm",)]), threading.Event(), threading.Event()
    write = counting._write

    def failing(*_: Any) -> None:
        monkeypatch.setattr(counting, "_write", write)
        writing.set()
        go_on.wait(20)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(counting, "_write", failing)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(counter.spool, tmp_path)
        assert writing.wait(20)
        last = pool.submit(counter.spool, tmp_path)
        with pytest.raises(TimeoutError):
            last.result(0.2)
        go_on.set()
        with pytest.raises(StoreError):
            first.result()
        last.result()
    [path] = spooled(tmp_path)
    assert [(miss.query, miss.count) for miss in read_spooled(path)] == [('{"text":"Ulm"}', 1)]


def test_a_spool_folder_that_nobody_empties_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the collector has ended, a worker writes so many files and no more; what comes then is counted as dropped."""
    assert counting.MOST_FILES > collector.MOST_FILES, "the collector's own bound comes first"
    monkeypatch.setattr(counting, "MOST_FILES", 2)
    counter = counted([])
    for number in range(4):
        counter.add((str(number),))
        if number < 2:
            counter.spool(tmp_path)
        else:
            with pytest.raises(StoreError, match="holds 2 files that nobody collects"):
                counter.spool(tmp_path)
    assert (len(spooled(tmp_path)), counter.dropped, len(counter)) == (2, 2, 0)


def test_a_worker_that_counts_imports_nothing_big() -> None:
    """Neither the counter nor a collector that finds nothing loads pyarrow or duckdb."""
    code = (
        "import pathlib, sys\n"
        "from batchinfer.misses import collector, counter\n"
        "collector.Collector(pathlib.Path('/nowhere'), pathlib.Path('/nowhere'), 'one').round()\n"
        "sys.exit(' '.join({'pyarrow', 'duckdb', 'pydantic'} & sys.modules.keys()) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
