"""Counts of all servers in Parquet beside the job: added up once each, bounded, and found by SQL."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from batchinfer.core.columns import Column
from batchinfer.core.home import JobData
from batchinfer.core.keys import lookup_hash
from batchinfer.misses import log
from batchinfer.misses.counter import spooled
from tests.factories import LENIENT, imports_job
from tests.misses.counts import asked, collect, counted, found
from tests.tiny import ROOT


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


def test_imports_live_beside_misses(tmp_path: Path) -> None:
    """A job without a model records misses and takes none in."""
    world = imports_job(tmp_path, {"id": ["a"]}, gate=LENIENT)
    asked(world.data, [("b",)], ("id",))
    world.take_in({"id": ["a"], "prediction": ["1"]})
    assert world.publish().misses is None
    assert found(world.data) == {'{"id":"b"}': 1}
