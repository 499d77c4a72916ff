"""Look-ups that were answered are counted by version, once, whatever dies or is written badly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from unittest import mock

import pytest

from batchinfer.core.home import JobData
from batchinfer.misses.served import ServedCounter
from batchinfer.versions.lookups import read_lookups
from tests.factories import World, imports_job


def counters(folder: Path, pid: int, **totals: int) -> None:
    """What a worker wrote: totals of the job shop."""
    folder.mkdir(exist_ok=True)
    content = {"series": [], "counters": [[name, "shop", count] for name, count in totals.items()]}
    (folder / f"{pid}.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def shop(tmp_path: Path) -> World:
    world = imports_job(tmp_path, {"id": ["Ulm", "Bonn"]}, name="shop")
    world.take_in({"id": ["Ulm", "Bonn"], "prediction": ["a", "b"]})
    world.publish()
    return world


@pytest.fixture
def said() -> list[str]:
    return []


def test_answers_are_counted_to_the_version_that_gave_them(shop: World, tmp_path: Path, said: list[str]) -> None:
    """Totals of all workers, those that died, too; what came before a new version was seen counts for the old one."""
    metrics = tmp_path / "metrics"
    counter = ServedCounter(shop.data.root, metrics, "8000", said.append)
    counter.round()  # nobody wrote anything yet
    assert read_lookups(shop.data) == {}
    counters(metrics, 1, hits=10, misses=5, student_answers=2)
    counters(metrics, 2, hits=1)
    counter.round()
    counter.round()
    assert read_lookups(shop.data) == {1: 13}
    shop.take_in({"id": ["Ulm"], "prediction": ["c"]})
    shop.publish()
    counters(metrics, 1, hits=14, misses=5, student_answers=2)
    counter.round()
    counters(metrics, 1, hits=15, misses=5, student_answers=2)
    counter.round()
    assert read_lookups(shop.data) == {1: 17, 2: 1}
    assert said == []


def test_each_start_of_a_server_counts_from_nothing(shop: World, tmp_path: Path, said: list[str]) -> None:
    """A collector that was started again goes on where it was; a server that was, begins again; two servers add up."""
    for start, server, hits in [("a", "1", 10), ("a", "1", 12), ("b", "1", 5), ("c", "2", 100)]:
        counters(tmp_path / start, 1, hits=hits)
        ServedCounter(shop.data.root, tmp_path / start, server, said.append).round()
    assert read_lookups(shop.data) == {1: 12 + 5 + 100}


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"run": "a", "seen": {"hits": -1}, "versions": {}}', b'{"versions": {"x": 1}}']
)
def test_a_damaged_file_counts_nothing_and_is_written_anew(
    shop: World, tmp_path: Path, said: list[str], content: bytes
) -> None:
    """It stops nobody from serving, nor from looking at runs."""
    metrics = tmp_path / "metrics"
    counters(metrics, 1, hits=3)
    counter = ServedCounter(shop.data.root, metrics, "1", said.append)
    counter.round()
    [path] = shop.data.served.iterdir()
    path.write_bytes(content)
    assert read_lookups(shop.data) == {}
    counter.round()
    assert read_lookups(shop.data) == {1: 3}


def test_what_cannot_be_written_is_counted_later_and_told_once(shop: World, tmp_path: Path, said: list[str]) -> None:
    """A disk that is full for a while loses no look-up."""
    counters(tmp_path / "metrics", 1, hits=3)
    counter = ServedCounter(shop.data.root, tmp_path / "metrics", "1", said.append)
    with mock.patch("batchinfer.misses.served.write_atomically", side_effect=OSError(28, "No space left on device")):
        counter.round()
        counter.round()
    assert len(said) == 1
    assert said[0].startswith("The look-ups of shop that were answered are not counted yet: ")
    counter.round()
    assert read_lookups(shop.data) == {1: 3}


def test_a_worker_that_cannot_be_read_for_a_round_is_counted_once(shop: World, tmp_path: Path, said: list[str]) -> None:
    """Nor is one that began again with the same number taken for less than nothing."""
    metrics = tmp_path / "metrics"
    counter = ServedCounter(shop.data.root, metrics, "1", said.append)
    counters(metrics, 1, hits=100)
    counters(metrics, 2, hits=50)
    counter.round()
    for broken in ("", "[]", '{"series": []}', '{"counters": [[1]]}'):
        (metrics / "2.json").write_text(broken, encoding="utf-8")
        counter.round()
    counters(metrics, 2, hits=51)
    counter.round()
    assert read_lookups(shop.data) == {1: 151}
    counters(metrics, 2, hits=3)
    counter.round()
    assert read_lookups(shop.data) == {1: 154}
    assert said == []


def test_a_file_that_cannot_be_read_is_not_replaced(shop: World, tmp_path: Path, said: list[str]) -> None:
    """A share that is away for a moment must not take years of counts with it."""
    metrics = tmp_path / "metrics"
    counters(metrics, 1, hits=100)
    counter = ServedCounter(shop.data.root, metrics, "1", said.append)
    counter.round()
    counters(metrics, 1, hits=101)
    with mock.patch("batchinfer.versions.lookups.read_small", side_effect=OSError(116, "Stale file handle")):
        assert read_lookups(shop.data) == {}
    with mock.patch("batchinfer.versions.lookups.read_small", side_effect=OSError(116, "Stale file handle")):
        counter.round()
    assert len(said) == 1
    counter.round()
    assert read_lookups(shop.data) == {1: 101}


def test_a_job_that_was_made_again_begins_at_nothing(shop: World, tmp_path: Path, said: list[str]) -> None:
    """What was answered of the one before is not its successor's."""
    metrics = tmp_path / "metrics"
    counters(metrics, 1, hits=100)
    counter = ServedCounter(shop.data.root, metrics, "1", said.append)
    counter.round()
    kept = shop.data.folder.rename(tmp_path / "kept")
    counter.round()
    shutil.copytree(kept, shop.data.folder, ignore=shutil.ignore_patterns("served"))
    counters(metrics, 1, hits=102)
    counter.round()
    assert read_lookups(shop.data) == {1: 2}


def test_nothing_is_made_for_jobs_that_are_not_there(tmp_path: Path, said: list[str]) -> None:
    """A job that was removed, or that never was, gets no folder."""
    counters(tmp_path / "metrics", 1, hits=3)
    ServedCounter(tmp_path / "home", tmp_path / "metrics", "1", said.append).round()
    assert not (tmp_path / "home").exists()
    assert read_lookups(JobData(tmp_path / "home", "shop")) == {}
    assert said == []
