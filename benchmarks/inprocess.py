"""Times look-ups in the caller's own process: Lookup on a data folder, hits and misses, single and many.

    python -m benchmarks.inprocess [--entries 5000000] [--rounds 5]

Limit: 10 µs a key. The peer is the bare LMDB get of the same keys, already hashed: the least that any look-up in this
file must take; and the same with its JSON parsed, since Lookup hands back a dictionary.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from batchinfer import Lookup
from batchinfer.core.home import JobData
from batchinfer.versions import folders
from batchinfer.versions.snapshot import Snapshot
from benchmarks.made import JOB, key_of, make

KEYS = 100_000  # for each measurement


def per_key(work: Callable[[Any], Any], arguments: Sequence[Any]) -> float:
    """Microseconds of processor time for one: what else runs on the machine counts for little then."""
    began = time.thread_time()
    for argument in arguments:
        work(argument)
    return (time.thread_time() - began) / len(arguments) * 1e6


def measure(root: Path, entries: int, rounds: int) -> dict[str, list[float]]:
    """Microseconds a key, by way. root: a data folder with a version that `made` made."""
    present = [{"id": key_of(random.randrange(entries))} for _ in range(KEYS)]
    absent = [{"id": key_of(entries + random.randrange(entries))} for _ in range(KEYS)]
    again = [present[number % 500] for number in range(KEYS)]
    batches = [present[at : at + 1000] for at in range(0, KEYS, 1000)]
    with Snapshot(folders.folder_of(JobData(root, JOB), 1)) as snapshot, Lookup(root, JOB) as lookup:
        hashed = [snapshot.reader.lookup_hash((query["id"],)) for query in present]
        ways: dict[str, Callable[[], float]] = {
            "LMDB get of a hashed key": lambda: per_key(snapshot.find, hashed),
            "the same, JSON parsed": lambda: per_key(lambda key: json.loads(snapshot.find(key) or b""), hashed),
            "Lookup.get, a hit": lambda: per_key(lookup.get, present),
            "Lookup.get, 500 hits again and again": lambda: per_key(lookup.get, again),
            "Lookup.get, a miss": lambda: per_key(lookup.get, absent),
            "Lookup.get_many of 1,000 hits": lambda: per_key(lookup.get_many, batches) / 1000,
        }
        for work in ways.values():
            work()  # once, so that the pages are in memory
        return {way: [work() for _ in range(rounds)] for way, work in ways.items()}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="batchinfer-bench-") as name:
        make(Path(name), given.entries)
        taken = measure(Path(name), given.entries, given.rounds)
    drawn = Table(title=f"{given.entries:,} entries, random keys, {KEYS:,} a round", title_justify="left")
    drawn.add_column("what")
    drawn.add_column("µs a key: median (range)", justify="right")
    for way, times in taken.items():
        drawn.add_row(way, f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})")
    Console().print(drawn)


if __name__ == "__main__":
    main()
