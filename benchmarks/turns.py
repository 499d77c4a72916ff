"""Times look-ups over HTTP beside another checkout of this repository, on one version and in turns.

    python -m benchmarks.turns [--other PATH] [--entries 1000000] [--rounds 5] [--seconds 3]

PATH is the other checkout, such as a worktree of an older commit; without it this one is asked twice, which shows how far two runs of
the same differ. One server process of each on core 0, wrk on core 1: random keys that
there are, keys that there are not, and batches of the same 1,000. What is printed is what the worker takes of its core, for which other
work on the machine counts for little, and its ratio in each round.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.made import make
from benchmarks.servers import ROOT, SERVER_CORE, free_port, need_wrk, running, say, service
from benchmarks.serving import BATCH, keys_per_second, load, processor_seconds, script, spread


def kinds(folder: Path, entries: int, seconds: float) -> dict[str, Callable[[int], float]]:
    """By name: what asks a port, and says how many keys a second were answered."""
    hit, miss = script(folder, entries), folder / "absent.lua"
    miss.write_text(hit.read_text(encoding="utf-8").replace("id=k%012d", "id=x%012d"), encoding="utf-8")
    return {
        "a hit": lambda port: load("wrk", port, seconds, hit).rate,
        "a miss": lambda port: load("wrk", port, seconds, miss).rate,
        f"a key in batches of {BATCH:,}": lambda port: keys_per_second(port, entries, seconds, folder),
    }


def measure(folder: Path, checkouts: list[Path], given: argparse.Namespace) -> dict[str, list[list[float]]]:
    """Microseconds of the worker for each kind, by round and checkout."""
    asking = kinds(folder, given.entries, given.seconds)
    found: dict[str, list[list[float]]] = {kind: [] for kind in asking}
    with contextlib.ExitStack() as stack:
        servers = []
        for checkout in checkouts:
            port = free_port()
            python, *options = service(folder / "home", port, "--workers", "1", "--no-misses")
            command, url = [python, "-P", *options], f"http://127.0.0.1:{port}/readyz"  # else this checkout comes first
            servers.append(
                (port, stack.enter_context(running(command, SERVER_CORE, {"PYTHONPATH": str(checkout)}, url)))
            )
        for number in range(given.rounds):
            say(f"Round {number + 1} of {given.rounds} …")
            for kind, ask in asking.items():
                times = []
                for port, parent in servers:
                    before = processor_seconds(parent)
                    rate = ask(port)
                    times.append((processor_seconds(parent) - before) / rate / given.seconds * 1e6)
                found[kind].append(times)
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, default=ROOT, help="the other checkout")
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    need_wrk()
    if not (given.other / "batchinfer").is_dir():
        sys.exit(f"{given.other} is no checkout of batchinfer.")
    with tempfile.TemporaryDirectory(prefix="batchinfer-bench-") as name:
        make(Path(name) / "home", given.entries)
        found = measure(Path(name), [given.other.resolve(), ROOT], given)
    drawn = Table(title=f"µs of a worker, {given.entries:,} entries: median (range)", title_justify="left")
    for column in ("what", "other", "this", "this over other"):
        drawn.add_column(column, justify="left" if column == "what" else "right")
    for kind, rounds in found.items():
        other, this = zip(*rounds, strict=True)
        drawn.add_row(kind, spread(list(other)), spread(list(this)), spread([mine / his for his, mine in rounds]))
    Console(width=120).print(drawn)


if __name__ == "__main__":
    main()
