"""Misses as servers count them, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from batchinfer.core.home import JobData
from batchinfer.misses import log
from batchinfer.misses.collector import Collector
from batchinfer.misses.counter import MissCounter, spooled

Query = tuple[Any, ...]


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
