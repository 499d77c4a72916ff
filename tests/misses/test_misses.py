"""Misses: counted in bounded memory, merged into Parquet once each, taken into the next run's list."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchinfer.core.columns import Column
from batchinfer.core.home import JobData
from batchinfer.core.keys import lookup_hash
from batchinfer.errors import SpecError, StoreError
from batchinfer.job import reader
from batchinfer.misses import collector, log
from batchinfer.misses import counter as counting
from batchinfer.misses.collector import Collector
from batchinfer.misses.counter import Miss, MissCounter, read_spooled, spooled
from tests.factories import LENIENT, World, imports_job, model_job, unchecked
from tests.serving import eventually
from tests.tiny import ROOT

Query = tuple[Any, ...]
NOON = datetime(2026, 1, 31, 12, 30, 0, 123456)  # noqa: DTZ001 - lists hold times without a zone
INCLUDE = {"path": "queries.parquet", "key": ["text"], "include_misses": {"at_least": 1}}


@pytest.fixture
def data(tmp_path: Path) -> JobData:
    """The data folder of a job that was published."""
    data = JobData(tmp_path / "home", "shop")
    data.folder.mkdir(parents=True)
    return data


def counted(queries: list[Query], names: tuple[str, ...] = ("text",)) -> MissCounter:
    """A counter that has counted these misses."""
    counter = MissCounter(names)
    for query in queries:
        counter.add(query)
    return counter


def collect(data: JobData, spool: Path, server: str = "one") -> None:
    """One round of a server's collector."""
    Collector(data.root, spool, server).round()


def asked(data: JobData, queries: list[Query], names: tuple[str, ...] = ("text",), server: str = "one") -> None:
    """A server of that name was asked these, found none, and its counts were merged."""
    spool = data.root.parent / f"spool-{server}"
    counted(queries, names).spool(spool / data.name)
    collect(data, spool, server)
    assert not queries or spooled(spool / data.name) == []


def found(data: JobData) -> dict[str, int]:
    """The count of each query over all files."""
    counts: dict[str, int] = {}
    for path in log.files(data):
        for row in pq.read_table(path).to_pylist():
            counts[row["query"]] = counts.get(row["query"], 0) + row["count"]
    return counts


def to_ask(world: World, column: str = "text") -> list[Any]:
    """What a run would ask the model, sorted."""
    with world.prepared() as p:
        counts = p.plan.counts
        assert counts.rows == counts.bad + counts.duplicates + counts.unique
        return sorted(row[column] for _, row in p.plan.todo())


# --- counting


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


# --- merging


def test_counts_are_added_up_over_rounds_and_servers(data: JobData) -> None:
    """Each server has one file a day; it adds up what comes, and keeps when a query was first and last seen."""
    asked(data, [("Ulm",), ("Bonn",)], server="a/b")
    [path] = log.files(data)
    first = pq.read_table(path).to_pylist()[0]["first_seen"]
    asked(data, [("Ulm",), ("Ulm",)], server="a/b")
    asked(data, [("Ulm",)], server="two")
    assert found(data) == {'{"text":"Ulm"}': 4, '{"text":"Bonn"}': 1}
    names = [path.name for path in log.files(data)]
    assert len(names) == 2
    assert all(name.startswith(f"{datetime.now(UTC).date()}-") for name in names)
    assert names[0].endswith("-a_b.parquet")
    table = pq.read_table(path)
    assert table.schema.remove_metadata() == log.SCHEMA
    [row] = [row for row in table.to_pylist() if row["query"] == '{"text":"Ulm"}']
    assert row["first_seen"] == first < row["last_seen"]


def test_two_servers_of_one_name_take_turns(data: JobData, tmp_path: Path) -> None:
    """Collectors that write the same file at once lose none of each other's counts."""

    def serve(number: int) -> None:
        spool = tmp_path / f"spool-{number}"
        for _ in range(10):
            counted([("Ulm",)]).spool(spool / "shop")
            collect(data, spool)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(serve, range(3)))
    assert found(data) == {'{"text":"Ulm"}': 30}


def test_a_spooled_file_goes_to_the_day_on_which_it_was_spooled(data: JobData, tmp_path: Path) -> None:
    """What was left over night is merged into yesterday's file, so that it is known there if it was merged before."""
    folder = tmp_path / "spool" / "shop"
    counted([("Ulm",)]).spool(folder)
    [path] = spooled(folder)
    path.rename(folder / "20260105T235959123456-7-0.json")
    collect(data, tmp_path / "spool")
    assert [path.name[:11] for path in log.files(data)] == ["2026-01-05-"]


def test_a_file_keeps_those_asked_most(data: JobData, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day's file is bounded: the rarest queries go."""
    monkeypatch.setattr(log, "MOST_QUERIES", 3)
    asked(data, [("a",)] * 5 + [("b",), ("c",), ("c",)])
    asked(data, [("d",), ("d",), ("e",)])
    assert set(found(data)) == {'{"text":"a"}', '{"text":"c"}', '{"text":"d"}'}


DIES_BEFORE_REMOVING = """
import os, pathlib, signal, sys
from batchinfer.misses.collector import Collector
unlink = pathlib.Path.unlink
def die(path, *args, **kwargs):
    if path.suffix == ".json":
        os.kill(os.getpid(), signal.SIGKILL)
    unlink(path, *args, **kwargs)
pathlib.Path.unlink = die
Collector(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), "one").round()
"""

DIES_BEFORE_RENAMING = """
import os, pathlib, signal, sys
from batchinfer.misses.collector import Collector
pathlib.Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Collector(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), "one").round()
"""


@pytest.mark.parametrize(("code", "merged"), [(DIES_BEFORE_REMOVING, True), (DIES_BEFORE_RENAMING, False)])
def test_a_killed_collector_loses_nothing_and_counts_nothing_twice(data: JobData, code: str, merged: bool) -> None:
    """Killed before or after the Parquet file is renamed: the next round ends with each miss counted once."""
    asked(data, [("Ulm",)])
    spool = data.root.parent / "spool-one"
    counted([("Ulm",), ("Bonn",)]).spool(spool / "shop")
    done = subprocess.run([sys.executable, "-c", code, str(data.root), str(spool)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(spooled(spool / "shop")) == 1
    assert found(data)['{"text":"Ulm"}'] == 1 + merged
    counted([("Ulm",)]).spool(spool / "shop")
    collect(data, spool)
    assert found(data) == {'{"text":"Ulm"}': 3, '{"text":"Bonn"}': 1}
    assert spooled(spool / "shop") == []
    collect(data, spool)
    assert found(data) == {'{"text":"Ulm"}': 3, '{"text":"Bonn"}': 1}
    assert [path.name for path in data.misses.iterdir() if path.name.startswith(".2")] == [], "no draft is left"


def test_a_data_folder_that_vanishes_is_waited_for(
    data: JobData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While the folder is gone, one line says so and the spool is kept; nothing is made in its place."""
    away = tmp_path / "away"
    data.root.rename(away)
    spool = tmp_path / "spool"
    taking = Collector(data.root, spool, "one")
    for _ in range(3):
        counted([("Ulm",)]).spool(spool / "shop")
        taking.round()
    assert capsys.readouterr().err == (
        f"The misses of shop wait: {data.folder} is not there: mount or make the data folder again.\n"
    )
    assert not data.root.exists()
    away.rename(data.root)
    taking.round()
    assert found(data) == {'{"text":"Ulm"}': 3}
    assert capsys.readouterr().err == ""


def test_what_waits_is_bounded(
    data: JobData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While a job's folder cannot be written, the oldest of its spooled files go, and other jobs go on."""
    data.misses.write_text("in the way", encoding="utf-8")
    other = JobData(data.root, "other")
    other.folder.mkdir()
    monkeypatch.setattr(collector, "MOST_FILES", 2)
    spool = tmp_path / "spool"
    for text in ("a", "b", "c", "d"):
        counted([(text,)]).spool(spool / "shop")
    counted([("Ulm",)]).spool(spool / "other")
    collect(data, spool)
    assert "The misses of shop wait:" in capsys.readouterr().err
    assert found(other) == {'{"text":"Ulm"}': 1}
    data.misses.unlink()
    collect(data, spool)
    assert found(data) == {'{"text":"c"}': 1, '{"text":"d"}': 1}


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"since": "x"}', '{"since": "2026-01-01", "until": "2026-01-01", "misses": [["\\ud800", 1]]}'],
)
def test_a_damaged_spooled_file_stops_nothing(
    data: JobData, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    """A file that was cut off by a power failure is reported, removed, and does not keep the others back."""
    folder = tmp_path / "spool" / "shop"
    counted([("Ulm",)]).spool(folder)
    damaged = folder / "20260105T235959123456-7-0.json"
    damaged.write_text(content, encoding="utf-8")
    collect(data, tmp_path / "spool")
    assert capsys.readouterr().err.startswith(f"{damaged} is damaged, so its misses are lost:")
    assert spooled(folder) == []
    assert found(data) == {'{"text":"Ulm"}': 1}


def test_a_damaged_parquet_file_is_left_alone(
    data: JobData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If today's file is damaged, the collector says so and keeps what was spooled until somebody moves it away."""
    asked(data, [("Ulm",)])
    [path] = log.files(data)
    path.write_bytes(path.read_bytes()[:50])
    counted([("Bonn",)]).spool(tmp_path / "spool" / "shop")
    collect(data, tmp_path / "spool")
    assert f"{path} is damaged" in capsys.readouterr().err
    path.rename(tmp_path / "moved")
    collect(data, tmp_path / "spool")
    assert found(data) == {'{"text":"Bonn"}': 1}


def test_the_process_takes_in_what_comes_and_ends_with_its_server(data: JobData, tmp_path: Path) -> None:
    """The collector's process merges while it runs, heeds no Ctrl-C or SIGTERM, and ends when its stdin closes."""
    spool = tmp_path / "spool"
    command = [
        sys.executable,
        "-m",
        "batchinfer.misses.collector",
        str(data.root),
        str(spool),
        "one",
        "--interval",
        "0.05",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT) as process:
        counted([("Ulm",)]).spool(spool / "shop")
        eventually(lambda: found(data))
        assert found(data) == {'{"text":"Ulm"}': 1}
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        counted([("Ulm",)]).spool(spool / "shop")
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0
    assert found(data) == {'{"text":"Ulm"}': 2}


def test_the_server_can_start_it(data: JobData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`start` gives a process whose last round comes when its stdin is closed."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    counted([("Ulm",)]).spool(tmp_path / "spool" / "shop")
    process = collector.start(data.root, tmp_path / "spool", "one")
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == 0
    assert found(data) == {'{"text":"Ulm"}': 1}


def test_one_that_has_just_died_makes_its_last_round(
    data: JobData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the collector dies in the moment in which the server stops, what the workers left is merged anyway."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    supervisor = collector.Supervisor(data.root, tmp_path / "spool", "one")
    supervisor._stopping.set()
    supervisor._process.kill()
    supervisor._process.wait(30)
    counted([("Ulm",)]).spool(tmp_path / "spool" / "shop")
    supervisor.stop(30)
    assert supervisor._process.poll() == 0
    assert found(data) == {'{"text":"Ulm"}': 1}


def test_one_that_goes_on_dying_is_started_ever_more_rarely(
    data: JobData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A collector that cannot run fills no log and keeps no core busy; the server still stops at once."""
    waits: list[float] = []

    class Impatient(threading.Event):
        """Notes how long a wait would be, and really waits from the ninth on."""

        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            return super().wait(timeout if len(waits) > 8 else 0)

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(sys, "executable", "false")
    monkeypatch.setattr(collector, "Event", Impatient)
    supervisor = collector.Supervisor(data.root, tmp_path / "spool", "one")
    eventually(lambda: len(waits) > 8)
    supervisor.stop(30)
    assert waits == [0, 1, 3, 7, 15, 31, 60, 60, 60]
    message = "The collector of misses ended with the exit code 1: it is started again."
    assert [record.message for record in caplog.records] == [message] * 8


def test_a_query_can_be_forgotten(data: JobData) -> None:
    """A query goes out of all files in every spelling, others stay, and merged files are still known."""
    asked(data, [("Ulm", 7), ("ULM", 7), ("Bonn", 7)], ("town", "year"), server="a")
    asked(data, [("Ulm", 7), ("Ulm", 8)], ("town", "year"), server="b")
    key = [Column("town", "string"), Column("year", "integer")]
    lookup = lookup_hash(["ulm", 7], key, ["casefold"])
    merged = [pq.read_schema(path).metadata[log.MERGED] for path in log.files(data)]
    assert log.erase(data, lookup, key, ["casefold"]) == 2
    assert set(found(data)) == {'{"town":"Bonn","year":7}', '{"town":"Ulm","year":8}'}
    assert [pq.read_schema(path).metadata[log.MERGED] for path in log.files(data)] == merged
    assert log.erase(data, lookup, key, ["casefold"]) == 0


def test_the_query_of_the_docs_runs(data: JobData, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SQL of docs/misses.md shows what was asked for most, in the job's folder."""
    asked(data, [("Ulm",)], server="one")
    asked(data, [("Bonn",), ("Ulm",)], server="two")
    [query] = re.findall(
        r"^```sql\n(.*?)^```", (ROOT / "docs/misses.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    monkeypatch.chdir(data.folder)
    with duckdb.connect() as db:
        rows = db.execute(query).fetchall()
    assert [row[:2] for row in rows] == [('{"text":"Ulm"}', 2), ('{"text":"Bonn"}', 1)]


# --- taking them into a run


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., World]:
    """A job that takes misses in; its key is the column `text`, which its list has."""

    def job(rows: Any = ("one", "two"), include: dict[str, Any] | None = None, **sections: Any) -> World:
        columns = rows if isinstance(rows, dict) else {"text": rows if isinstance(rows, pa.Array) else list(rows)}
        return model_job(tmp_path, columns, **({"input": INCLUDE | (include or {}), "gate": LENIENT} | sections))

    return job


def test_a_miss_is_asked_served_and_kept(make: Callable[..., World]) -> None:
    """What clients did not find is in the next version, and in the one after it, though nobody misses it any more."""
    world = make()
    asked(world.data, [("three",), ("one",)])
    with world.prepared() as p:
        assert (p.plan.counts.rows, p.plan.counts.misses, p.plan.counts.lookups) == (3, 1, 3)
    world.answer(lambda row: row["text"].upper())
    report = world.publish()
    assert (report.version, report.entries, report.rows, report.misses) == (1, 3, 3, 1)
    hit = json.loads(world.get(text="three") or b"{}")
    assert (hit["query"], hit["prediction"], hit["source"]) == ({"text": "three"}, "THREE", "model")
    world.rows({"text": ["one", "four"]})
    world.answer(lambda row: row["text"].upper())
    report = world.publish()
    assert (report.version, report.entries, report.misses) == (2, 3, 1)
    assert world.get(text="three") is not None


def test_misses_are_taken_in_only_where_the_job_says_so(make: Callable[..., World]) -> None:
    """Without include_misses the files are there and do nothing, and the report's field is null."""
    world = make().changed(input={"path": "queries.parquet", "key": ["text"]})
    asked(world.data, [("three",)])
    assert to_ask(world) == ["one", "two"]
    world.answer(lambda row: row["text"])
    assert world.run().misses is None


def test_how_often_counts_over_files_and_spellings(make: Callable[..., World]) -> None:
    """at_least is compared with the sum over days, servers and spellings of one lookup key; the first spelling is asked."""
    world = make(["Bonn"], {"include_misses": {"at_least": 3}, "normalize": ["casefold", "trim"]})
    asked(world.data, [("Ulm",), ("Jena",), ("BONN",)], server="b")
    asked(world.data, [(" ulm",), ("ulm",), ("Jena",), ("BONN",), ("bonn",)], server="c")
    assert to_ask(world) == ["Bonn", "Ulm"]
    asked(world.data, [("ulm",)] * 50, server="c")
    assert to_ask(world) == ["Bonn", "Ulm"], "the spelling that was asked first, however often another is"


def test_a_key_of_the_list_is_no_miss(make: Callable[..., World]) -> None:
    """A key that the list has is not taken in again, though its row is bad or contradicts another."""
    rows = {"id": [1, 2, 2, 3], "text": ["one", "two", "2", ""]}
    world = make(rows, {"key": ["id"], "include_misses": None})
    names = ("id",)
    asked(world.data, [(1,), (2,), (3,), (4,)], names)
    world = world.changed(
        input={"path": "queries.parquet", "key": ["id"], "optional": ["text"], "include_misses": {}},
        prompt={"template": "{{ id }} {{ text or '' }}"},
    )
    with world.prepared() as p:
        assert (p.plan.counts.rows, p.plan.counts.bad, p.plan.counts.misses) == (5, 2, 1)
        assert sorted((row["id"], row["text"]) for _, row in p.plan.todo()) == [(1, "one"), (3, ""), (4, None)]


@pytest.mark.parametrize(
    ("listed", "values"),
    [
        pytest.param(pa.array(["a"]), ["b", "é", "1", "x\x00y", '"quoted"\\'], id="string"),
        pytest.param(pa.array([1]), [2, -7, 2**63 - 1, -(2**63)], id="integer"),
        pytest.param(pa.array([1], pa.uint64()), [2**64 - 1], id="uint64"),
        pytest.param(pa.array([1.5]), [0.1, -2.0, 1e300, 5e-324], id="number"),
        pytest.param(pa.array([True]), [False], id="boolean"),
        pytest.param(pa.array([date(2026, 1, 1)]), [date(1, 1, 1), date(9999, 12, 31)], id="date"),
        pytest.param(pa.array([NOON]), [NOON + timedelta(seconds=1), datetime(1, 1, 1)], id="timestamp"),  # noqa: DTZ001
    ],
)
def test_values_of_every_kind_come_back_as_they_were(
    make: Callable[..., World], listed: pa.Array, values: list[Any]
) -> None:
    """A miss of any kind of key becomes a row with the same value, and is found once it is published."""
    world = make(listed)
    asked(world.data, [(value,) for value in values])
    assert to_ask(world) == sorted([*values, listed[0].as_py()])
    world.answer(lambda row: f"answer to {row['text']}")
    world.publish()
    for value in values:
        assert json.loads(world.get(text=value) or b"{}")["prediction"] == f"answer to {value}"


def test_a_time_with_a_zone_is_the_same_moment(make: Callable[..., World]) -> None:
    """A timestamp that clients gave with an offset is added as that moment in UTC."""
    world = make(pa.array([NOON]))
    asked(world.data, [(datetime(2026, 2, 1, 1, 0, tzinfo=timezone(timedelta(hours=2))),)])
    assert to_ask(world)[1] == datetime(2026, 1, 31, 23, 0)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("listed", "unfit"),
    [
        (pa.array(["a"]), [7, True, 1.5, "", "  ", None]),
        (pa.array([1]), ["7", True, 1.0, 2**63, -(2**63) - 1, 10**400, None]),
        (pa.array([1.5]), ["1.5", True, 10**400, None]),
        (pa.array([True]), [1, 0, "true", None]),
        (pa.array([date(2026, 1, 1)]), ["2026-13-01", "today", 7, "2026-01-01T00:00:00", None]),
        (pa.array([NOON]), ["noon", 7, "0001-01-01T00:00:00+14:00", None]),
    ],
    ids=["string", "integer", "number", "boolean", "date", "timestamp"],
)
def test_what_fits_no_row_is_left_out(make: Callable[..., World], listed: pa.Array, unfit: list[Any]) -> None:
    """Misses that are empty, too large, or of a kind that the column has no more are passed over without a word."""
    world = make(listed)
    queries = [json.dumps({"text": value}) for value in unfit]
    queries += ["", "7", "[]", "{}", '{"text":', '{"text": NaN}', '{"text": "\\ud800"}', '{"id": 1}', "[" * 100_000]
    queries += ['{"text": "a", "more": 1}', '{"text": ["a"]}', '{"text": {"a": 1}}']
    moment = datetime.now(UTC)
    spoken = {"x.json": [Miss(query, 5, moment, moment) for query in queries]}
    log.merge(world.data, date(2026, 1, 5), "one", spoken)
    with world.prepared() as p:
        assert (p.plan.counts.rows, p.plan.counts.bad, p.plan.counts.misses) == (1, 0, 0)


def test_the_jobs_filter_holds_for_misses_too(make: Callable[..., World]) -> None:
    """input.where on a key column keeps misses out as it does rows; all of them may be."""
    world = make({"text": ["one", "two"], "land": ["de", "fr"]}, {"key": ["text", "land"], "where": {"land": "de"}})
    asked(world.data, [("three", "de"), ("four", "fr")], ("text", "land"))
    assert to_ask(world) == ["one", "three"]
    assert to_ask(world.changed(input=INCLUDE | {"key": ["text", "land"], "where": {"land": "it"}})) == []


def test_an_imported_answer_is_not_asked(make: Callable[..., World]) -> None:
    """A miss that people have answered since needs no model."""
    world = make()
    asked(world.data, [("three",)])
    world.take_in({"text": ["three"], "prediction": ["3"]})
    assert to_ask(world) == ["one", "two"]


def test_taking_misses_in_moves_no_key(make: Callable[..., World]) -> None:
    """What is cached stays when include_misses is set or changed."""
    world = make().changed(input={"path": "queries.parquet", "key": ["text"]})
    world.answer(lambda row: row["text"])
    world = world.changed(input=INCLUDE)
    asked(world.data, [("three",)])
    assert to_ask(world) == ["three"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"PAR1", b"no parquet" * 100, {"query": ["{}"], "count": ["many"]}, {"other": [1]},
        {"query": unchecked([b"\xff"], pa.string()), "count": [1], "first_seen": [NOON], "last_seen": [NOON]},
    ],
    ids=["empty", "cut off", "no Parquet", "columns missing", "other columns", "no UTF-8"],
)  # fmt: skip
def test_a_damaged_file_stops_the_run_with_a_sentence(make: Callable[..., World], content: Any) -> None:
    """A run does not quietly lose what was missed: it names the file and says what to do."""
    world = make()
    world.data.misses.mkdir()
    path = world.data.misses / "2026-01-05-host-one.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        pq.write_table(pa.table(content), path)
    with pytest.raises(StoreError) as caught, world.prepared():
        pass
    assert str(caught.value).startswith(f"{path} is damaged, cannot be read, or holds no misses:")
    assert "Move it away" in str(caught.value)
    assert "\n" not in str(caught.value)
    path.unlink()
    assert to_ask(world) == ["one", "two"]


def test_a_folder_that_cannot_be_read_stops_the_run_too(make: Callable[..., World]) -> None:
    """What was missed is not quietly left out because its folder is none, or may not be listed."""
    world = make()
    world.data.misses.write_text("in the way", encoding="utf-8")
    with pytest.raises(StoreError, match="misses cannot be read: Not a directory"), world.prepared():
        pass


VALUES = {
    "string": st.text(max_size=20),
    "integer": st.integers(-(2**70), 2**70),
    "number": st.floats(),
    "boolean": st.booleans(),
    "date": st.dates(),
    "timestamp": st.datetimes(),
}
LISTED = {
    "string": "in the list", "integer": 0, "number": 0.0, "boolean": True, "date": date(2026, 1, 1), "timestamp": NOON,
}  # fmt: skip


@given(
    st.sampled_from(sorted(VALUES)).flatmap(lambda kind: st.tuples(st.just(kind), st.lists(VALUES[kind], max_size=8)))
)
@settings(max_examples=25)
def test_each_usable_miss_becomes_one_row(drawn: tuple[str, list[Any]]) -> None:
    """Through spool, Parquet and plan: one row for each lookup key that the list lacks and a list could have."""
    kind, values = drawn
    with tempfile.TemporaryDirectory() as folder:
        world = model_job(Path(folder), {"text": [LISTED[kind]]}, input=INCLUDE)
        asked(world.data, [(value,) for value in values])
        column = [Column("text", kind)]  # type: ignore[arg-type]
        usable = [value for value in [LISTED[kind], *values] if is_usable(value, kind)]
        wanted = {lookup_hash([value], column, []) for value in usable}
        with world.prepared() as p:
            assert {lookup_hash([row["text"]], column, []) for _, row in p.plan.todo()} == wanted
            assert (p.plan.counts.misses, p.plan.counts.bad) == (len(wanted) - 1, 0)


def is_usable(value: Any, kind: str) -> bool:
    """Whether a list's row may have this value."""
    if kind == "string":
        return bool(value.strip()) and is_utf8(value)
    if kind == "integer":
        return bool(-(2**63) <= value < 2**63)
    return kind != "number" or math.isfinite(value)


def is_utf8(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


# --- the job file

BEGIN = "name: shop\ninput:\n  path: q.parquet\n  key: [term, land]\n"
ASKING = "model: {id: org/name}\nprompt:\n  template: '{{ term }} {{ note }}'\n"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            BEGIN + "  include_misses: {at_least: 3}\n" + ASKING,
            [
                "line 5: input.include_misses: prompt.template uses note, and a miss has only the columns of input.key: put it there."
            ],
        ),
        (
            BEGIN
            + "  where: {good: true, of: 1, land: de}\n  include_misses: {at_least: 0}\nkeep_versions: 0\n"
            + ASKING,
            [
                "line 6: input.include_misses.at_least: input should be greater than or equal to 1 (it is 0).",
                "line 6: input.include_misses: input.where names good, of, and a miss has only the columns of input.key: put them there.",
                "line 6: input.include_misses: prompt.template uses note, and a miss has only the columns of input.key: put it there.",
                "line 7: keep_versions: input should be greater than or equal to 1 (it is 0).",
            ],
        ),
        (
            BEGIN + "  include_misses: {}\n",
            [
                "line 5: input.include_misses: the job has no prompt and no model, so nothing would answer them: leave it out."
            ],
        ),
        (
            BEGIN + "  include_misses: {least: 3}\n",
            [
                "line 5: input.include_misses.least: there is no such field; did you mean at_least?",
                "line 5: input.include_misses: the job has no prompt and no model, so nothing would answer them: leave it out.",
            ],
        ),
    ],
    ids=["template", "where, and all other faults", "no model", "typo"],
)
def test_a_job_that_misses_cannot_join_is_refused(text: str, problems: list[str]) -> None:
    """Columns that a miss does not have are reported when the file is read, with the line, among all other faults."""
    with pytest.raises(SpecError) as caught:
        reader.parse(text, "job.yaml")
    assert caught.value.problems == problems


@pytest.mark.parametrize(
    "text",
    [
        BEGIN + "  include_misses: {at_least: 3}\n  optional: [note]\n" + ASKING,
        BEGIN + "  include_misses: {}\n  where: {land: [de]}\n" + ASKING.replace("note", "land"),
        BEGIN + "  include_misses: null\n",
    ],
    ids=["optional", "key only", "null"],
)
def test_a_job_that_misses_can_join_is_taken(text: str) -> None:
    """The template may use the key's columns, and others that may be null; at_least is 1 if nothing is said."""
    spec = reader.parse(text, "job.yaml")
    assert spec.input.include_misses is None or spec.input.include_misses.at_least == (3 if "3" in text else 1)


def test_recording_is_on_unless_the_job_says_no() -> None:
    """serve.misses is true by default, and part of no key."""
    spec = reader.parse(BEGIN, "job.yaml")
    assert spec.serve.misses
    assert not reader.parse(BEGIN + "serve: {misses: false}\n", "job.yaml").serve.misses
    assert "misses" not in spec.beyond_defaults().get("serve", {})


def test_imports_live_beside_misses(tmp_path: Path) -> None:
    """A job without a model records misses and takes none in."""
    world = imports_job(tmp_path, {"id": ["a"]}, gate=LENIENT)
    asked(world.data, [("b",)], ("id",))
    world.take_in({"id": ["a"], "prediction": ["1"]})
    assert world.publish().misses is None
    assert found(world.data) == {'{"id":"b"}': 1}
