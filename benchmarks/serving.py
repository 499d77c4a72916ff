"""Measures look-ups over HTTP against the most that the server can do, and against Redis and DuckDB behind Starlette.

    python -m benchmarks.serving [--entries 5000000] [--memory-entries 10000000] [--rounds 5] [--wrk2 PATH]

One server process on core 0, the load generator (and Redis) on core 1; all servers are granian, all are asked with wrk
for random keys over 32 connections, in turns, so that what else the machine does hits them alike. Ratios are of one
round; their median and range are printed. The tail is measured with an open loop, which holds its rate whatever comes
back, at half of the fixed reply's top rate: that needs wrk2 (github.com/giltene/wrk2), since wrk waits for answers.

Needs wrk, redis-server and the Python package redis; a peer that is missing is left out, and said so. It does not show
several workers, a network, or data that is not in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import inprocess
from benchmarks.made import JOB, body, key_of, make
from benchmarks.servers import (
    LOAD_CORE,
    SERVER_CORE,
    databases,
    free_port,
    granian,
    need_wrk,
    running,
    say,
    service,
    workers_of,
)

CONNECTIONS = 32
BATCH = 1000


@dataclass(frozen=True)
class Measured:
    """What wrk said: requests/s, and times in milliseconds."""

    rate: float
    median: float
    p99: float
    failed: int


def script(folder: Path, entries: int) -> Path:
    """wrk's: a random key for each request."""
    path = folder / "random.lua"
    path.write_text(
        f"math.randomseed({os.getpid()})\n"
        'request = function() return wrk.format("GET", string.format('
        f'"/v1/jobs/{JOB}/lookup?id=k%012d", math.random(0, {entries - 1}))) end\n',
        encoding="utf-8",
    )
    return path


def load(tool: str, port: int, seconds: float, lua: Path, *options: str) -> Measured:
    """Asks a server, and reads what wrk says. Any answer that is not 2xx, or any broken connection, counts as failed."""
    command = [
        "taskset", "-c", str(LOAD_CORE), tool, "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "--latency", "-s", str(lua),
    ]  # fmt: skip
    said = subprocess.run(
        [*command, *options, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True
    ).stdout
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    failed = sum(map(int, broken.groups())) if broken else 0
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert rate is not None, said
    return Measured(float(rate[1]), _time(said, "50"), _time(said, "99"), failed + (int(refused[1]) if refused else 0))


def _time(said: str, percent: str) -> float:
    found = re.search(rf"\b{percent}(?:\.000)?%\s+([\d.]+)(us|ms|s)", said)
    assert found is not None, said
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]


def private_memory(parent: int) -> float:
    """MB that the one worker below `parent` has for itself: what it wrote, Private_Dirty.

    Clean private pages are left out: those of the mapped file count as private while only one process has them mapped,
    and the kernel can take them back.
    """
    rows = Path(f"/proc/{_worker(parent)}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(row.split()[1]) for row in rows if row.startswith("Private_Dirty:")) / 1000


def processor_seconds(parent: int) -> float:
    """What the one worker below `parent` has taken of a core so far: what else runs on the machine counts for little then."""
    fields = Path(f"/proc/{_worker(parent)}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _worker(parent: int) -> int:
    """The one that answers, among the children of a service."""
    [worker] = workers_of(parent)
    return worker


def keys_per_second(port: int, entries: int, seconds: float, folder: Path) -> float:
    """Keys answered in batches of 1,000, asked one after the other over one connection by wrk."""
    lua = folder / "batch.lua"
    numbers = [(i * 7919) % entries for i in range(BATCH)]
    content = json.dumps({"queries": [{"id": key_of(number)} for number in numbers]}).replace("'", "")
    lua.write_text(
        f"wrk.method = 'POST'\nwrk.path = '/v1/jobs/{JOB}/lookup'\nwrk.body = '{content}'\n", encoding="utf-8"
    )
    command = [
        "taskset", "-c", str(LOAD_CORE), "wrk", "-t1", "-c2", f"-d{seconds:.0f}s", "-s", str(lua), f"http://127.0.0.1:{port}",
    ]  # fmt: skip
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in said, said
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert rate is not None
    return float(rate[1]) * BATCH


def spread(values: list[float], digits: int = 2) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


@dataclass(frozen=True)
class Results:
    """All that was measured. tails: of the fixed reply and of batchinfer, with an open loop; local: microseconds a key."""

    entries: int
    rounds: list[dict[str, Measured]]
    batches: list[float]
    rate: int
    tails: list[tuple[Measured, Measured]]
    local: dict[str, list[float]]
    memory_entries: int
    memory: float


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=5_000_000)
    parser.add_argument("--memory-entries", type=int, default=10_000_000, help="for the worker's private memory")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--wrk2", default="wrk2", help="wrk2's binary, for the tail")
    given = parser.parse_args()
    need_wrk()
    with tempfile.TemporaryDirectory(prefix="batchinfer-bench-") as name:
        folder = Path(name)
        rounds, batches, rate, tails = by_http(folder, given)
        say("Looking up in this process …")
        local = inprocess.measure(folder / "home", given.entries, given.rounds)
    with tempfile.TemporaryDirectory(prefix="batchinfer-bench-") as name:
        memory = worker_memory(Path(name), given.memory_entries)
    report(Results(given.entries, rounds, batches, rate, tails, local, given.memory_entries, memory))


def one_worker(folder: Path, port: int) -> list[str]:
    """What is measured."""
    return service(folder / "home", port, "--workers", "1", "--no-misses")


def worker_memory(folder: Path, entries: int) -> float:
    """MB of private memory after half a minute of random look-ups."""
    say(f"Making a version of {entries:,} entries, for the memory …")
    make(folder / "home", entries)
    port = free_port()
    with running(one_worker(folder, port), SERVER_CORE, {}, f"http://127.0.0.1:{port}/readyz") as parent:
        load("wrk", port, 30, script(folder, entries))
        return private_memory(parent)


def by_http(
    folder: Path, given: argparse.Namespace
) -> tuple[list[dict[str, Measured]], list[float], int, list[tuple[Measured, Measured]]]:
    """Rounds over all servers; keys/s in batches; the rate of the open loop, and the tails at it."""
    with contextlib.ExitStack() as stack:
        say(f"Making a version of {given.entries:,} entries …")
        data = make(folder / "home", given.entries)
        (folder / "body").write_bytes(body(data, 1))
        lua = script(folder, given.entries)
        ports = {"batchinfer": free_port()}
        ready = f"http://127.0.0.1:{ports['batchinfer']}/readyz"
        stack.enter_context(running(one_worker(folder, ports["batchinfer"]), SERVER_CORE, {}, ready))
        peers = {"fixed reply": ("fixed", {"BENCH_BODY": str(folder / "body")})} | databases(folder, data, stack)
        for peer, (app, environment) in peers.items():
            ports[peer] = free_port()
            url = f"http://127.0.0.1:{ports[peer]}/v1/jobs/{JOB}/lookup?id={key_of(1)}"
            stack.enter_context(running(granian(app, ports[peer]), SERVER_CORE, environment, url))
        say("Warming up …")
        load("wrk", ports["batchinfer"], 10, lua)
        say(f"{given.rounds} rounds over {len(ports)} servers …")
        rounds = [
            {peer: load("wrk", port, given.seconds, lua) for peer, port in ports.items()} for _ in range(given.rounds)
        ]
        batches = [keys_per_second(ports["batchinfer"], given.entries, 3, folder) for _ in range(given.rounds)]
        rate = int(statistics.median(row["fixed reply"].rate for row in rounds) / 2)
        if not shutil.which(given.wrk2):
            say("wrk2 is not installed: the tail is left out.")
            return rounds, batches, rate, []
        say(f"{given.rounds} rounds of an open loop at {rate:,} requests/s …")
        long = max(given.seconds, 12)  # wrk2 needs its first 10 s to find its pace
        tails = [
            (
                load(given.wrk2, ports["fixed reply"], long, lua, f"-R{rate}"),
                load(given.wrk2, ports["batchinfer"], long, lua, f"-R{rate}"),
            )
            for _ in range(given.rounds)
        ]
        return rounds, batches, rate, tails


def report(found: Results) -> None:
    """Prints what was measured, then each figure beside its limit."""
    console = Console(width=120)
    drawn = Table(
        title=f"One server process on one core, {found.entries:,} entries, random keys, {CONNECTIONS} connections",
        title_justify="left",
    )
    for column in ("server", "requests/s", "median ms", "p99 ms", "failed", "batchinfer's rate over it"):
        drawn.add_column(column, justify="left" if column == "server" else "right")
    ratios = {peer: [row["batchinfer"].rate / row[peer].rate for row in found.rounds] for peer in found.rounds[0]}
    for peer, ratio in ratios.items():
        row = [measured[peer] for measured in found.rounds]
        drawn.add_row(
            peer, spread([one.rate for one in row], 0), spread([one.median for one in row]), spread([one.p99 for one in row]),
            str(sum(one.failed for one in row)), "" if peer == "batchinfer" else spread(ratio),
        )  # fmt: skip
    console.print(drawn)
    limits = Table(title="Beside the limits: median (range)", title_justify="left")
    for column in ("what", "figure", "limit"):
        limits.add_column(column, justify="left" if column == "what" else "right")
    for peer, limit in (
        ("fixed reply", "at least 0.80"),
        ("Starlette + Redis", "at least 3"),
        ("Starlette + DuckDB", "at least 15"),
    ):
        if peer in ratios:
            limits.add_row(f"look-ups/s over those of: {peer}", spread(ratios[peer]), limit)
    if found.tails:
        fixed, ours = [one for one, _ in found.tails], [other for _, other in found.tails]
        limits.add_row(
            f"open loop at {found.rate:,}/s: median of the fixed reply, ms", spread([one.median for one in fixed]), ""
        )
        limits.add_row("  its p99, ms", spread([one.p99 for one in fixed]), "")
        limits.add_row("  batchinfer's median, ms", spread([one.median for one in ours]), "")
        limits.add_row("  batchinfer's p99, ms", spread([one.p99 for one in ours]), "")
        tail = [other.p99 / one.median for one, other in found.tails]
        limits.add_row("  batchinfer's p99 over the fixed reply's median", spread(tail), "under 5")
    limits.add_row(f"keys/s in batches of {BATCH:,}", spread(found.batches, 0), "at least 150000")
    for way, times in found.local.items():
        limits.add_row(f"in process, µs a key: {way}", spread(times), "under 10" if way.startswith("Lookup") else "")
    limits.add_row(f"private MB of a worker, {found.memory_entries:,} entries", f"{found.memory:.0f}", "under 120")
    console.print(limits)


if __name__ == "__main__":
    main()
