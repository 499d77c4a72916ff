"""A rerun of a list of which 1 % is new, beside the time that the new rows take: what it costs to come back next week.

    python -m benchmarks.rerun [--rows 20000] [--new 200] [--rate 16] [--rounds 3]

The list was answered and published before; then so many of its rows are replaced by new ones, and `batchinfer run` is called
again, as a whole process: starting, planning, loading the tokenizer, asking, gate, publishing on top of the version before. An
engine of a fixed rate stands in for the model (`benchmarks.paced`): 16 rows/s is what the bundled model answers of these prompts
on two cores (`benchmarks.throughput`). It loads at once; what a real model takes to load comes on top. Limit: 1.2 times the time
of the new rows. The last column is processor time of all cores, which other work on the machine changes little.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.engines import bundled
from benchmarks.paced import RATE
from benchmarks.throughput import JOB

LIMIT = 1.2
AT_ONCE = 5000.0  # rows/s with which the list is answered before
PARTS = ("waiting_seconds", "engine_load_seconds", "generation_seconds")


class Lists:
    """A job whose list changes, and its data folder."""

    def __init__(self, folder: Path) -> None:
        self._job, self._data = folder / "bench_rerun", folder / "home"
        self._job.mkdir()
        self._data.mkdir()
        models = bundled.shared_folder()
        bundled.ensure(models, bundled.digest(), print)
        text = JOB.replace("bench_throughput", "bench_rerun").replace(
            "failures: 1}", "failures: 1, shrink: 1, changed: 1}"
        )
        (self._job / "job.yaml").write_text(text, encoding="utf-8")

    def write(self, numbers: list[int]) -> None:
        """The list's rows from now on."""
        pq.write_table(pa.table({"number": numbers}), self._job / "queries.parquet")

    def run(self, rate: float) -> tuple[float, float, dict[str, Any]]:
        """Seconds of a whole process, those of all cores, and what it says of itself. rate: of the engine."""
        command = [
            sys.executable,
            "-m",
            "benchmarks.paced",
            "--home",
            str(self._data),
            "run",
            str(self._job),
            "--yes",
            "--json",
        ]
        # where the locks of devices lie: nobody is waited for
        own = {RATE: str(rate), "TMPDIR": str(self._data.parent)}
        began, used = time.monotonic(), _of_children()
        done = subprocess.run(command, env=os.environ | own, check=True, capture_output=True, text=True)
        return time.monotonic() - began, _of_children() - used, json.loads(done.stdout)


def _of_children() -> float:
    """Processor time of all processes that this one started and waited for, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--new", type=int, default=200)
    parser.add_argument("--rate", type=float, default=16.0)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    kept, wanted = list(range(asked.rows - asked.new)), asked.new / asked.rate
    print(
        f"{asked.rows} rows, {asked.new} of them new: {wanted:.1f} s at {asked.rate:g} rows/s, {os.cpu_count()} cores"
    )
    print(
        f"{'round':>5}{'whole, s':>10}{'over that':>11}{'generation, s':>15}{'tokenizer, s':>14}{'all else, s':>13}{'all cores, s':>14}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        lists = Lists(Path(temporary))
        lists.write(list(range(asked.rows)))
        lists.run(AT_ONCE)
        ratios = []
        for number in range(1, asked.rounds + 1):
            start = asked.rows + number * asked.new
            lists.write([*kept, *range(start, start + asked.new)])
            seconds, used, report = lists.run(asked.rate)
            assert report["generated"] == asked.new, report
            waited, loaded, asking = (report[name] for name in PARTS)
            rest = seconds - waited - loaded - asking
            ratios.append(seconds / wanted)
            print(
                f"{number:>5}{seconds:>10.1f}{ratios[-1]:>11.2f}{asking:>15.1f}{loaded:>14.1f}{rest:>13.1f}{used:>14.1f}",
                flush=True,
            )
        seconds, used, report = lists.run(asked.rate)
        assert not report["generated"], report
    print(f"whole run over the time of its new rows: median {statistics.median(ratios):.3f} (wanted: {LIMIT})")
    print(f"the same list again, with nothing new: {seconds:.1f} s, {used:.1f} s of all cores")


if __name__ == "__main__":
    main()
