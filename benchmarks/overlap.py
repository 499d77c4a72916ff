"""What a run does for each row beside the model, and how long models of several speeds wait for it.

    python -m benchmarks.overlap [--rows 20000] [--rates 50,500,1000,2000]

All of it (reading, rendering, tokenising, handing over, taking back, parsing, committing) is done in the run's process while
the model works in its own, on prompts that it has already. The first table is processor time of the run's process, by what it
does. The second asks lists of eight seconds of engines of a fixed rate (`benchmarks.paced`) in place of the model, and says for
which share of that they had nothing to do. Limit: 2 % at the rates of small models on a GPU. It does not show that on a machine
without a GPU the two share the cores: there each second of the first table is lost to the model.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.cache.store import Store
from batchinfer.core.home import JobData
from batchinfer.engines import bundled
from batchinfer.engines.member import Member
from batchinfer.engines.pool import EnginePool
from batchinfer.engines.process import LocalProcess
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.inputs.parquet import ListSource
from batchinfer.inputs.query_list import QueryList
from batchinfer.job import reader
from batchinfer.pipeline.generate import Generator
from batchinfer.pipeline.progress import Unattended
from batchinfer.pipeline.report import RunReport
from batchinfer.pipeline.run import run
from batchinfer.planning.plan import Plan
from batchinfer.planning.prepare import Options
from batchinfer.planning.prompts import PromptMaker
from batchinfer.prompting.parse import Parser
from benchmarks.paced import IDLE, RATE
from benchmarks.throughput import JOB

AT_ONCE = 100_000.0  # rows/s: an engine that is never waited for
SECONDS, LIMIT = 8.0, 0.02
STAGES: dict[str, list[tuple[Any, str]]] = {
    "reading rows of the plan": [(Plan, "_read"), (ListSource, "template_values"), (QueryList, "query_of")],
    "rendering prompts": [(PromptMaker, "fill"), (PromptMaker, "text")],
    "tokenising, once": [(Tokenizer, "encode")],
    "handing them over": [(Member, "give")],
    "taking answers back": [(LocalProcess, "receive")],
    "parsing them": [(Parser, "__call__")],
    "committing them": [(Store, "commit")],
}
Call = Callable[..., Any]


class Stopwatch:
    """Processor time of this process, by the innermost stage that it is in. seconds: by name."""

    def __init__(self) -> None:
        self.seconds = defaultdict[str, float](float)
        self._stage, self._since = "", time.process_time()

    def turn(self, stage: str) -> str:
        """Goes over to a stage; the one before."""
        now = time.process_time()
        self.seconds[self._stage] += now - self._since
        before, self._stage, self._since = self._stage, stage, now
        return before

    def within(self, stage: str, call: Call) -> Call:
        """The same call, which is such a stage; of an iterator each step is."""

        @functools.wraps(call)
        def timed(*values: Any, **named: Any) -> Any:
            before = self.turn(stage)
            try:
                found = call(*values, **named)
            finally:
                self.turn(before)
            return self._each(stage, found) if isinstance(found, Iterator) else found

        return timed

    def _each(self, stage: str, found: Iterator[Any]) -> Iterator[Any]:
        while True:
            before = self.turn(stage)
            try:
                item = next(found)
            except StopIteration:
                return
            finally:
                self.turn(before)
            yield item


class Runs:
    """Runs of lists of any length into empty caches."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        models = bundled.shared_folder()
        bundled.ensure(models, bundled.digest(), print)

    def run(self, rows: int, rate: float) -> tuple[RunReport, float]:
        """A run by an engine of this rate; for how many seconds that had nothing to do."""
        self._count += 1
        job = self._folder / f"list{self._count}" / "bench_throughput"
        job.mkdir(parents=True)
        (job / "job.yaml").write_text(JOB, encoding="utf-8")
        pq.write_table(pa.table({"number": list(range(rows))}), job / "queries.parquet")
        data = JobData(job.parent / "home", "bench_throughput")
        paced = functools.partial(EnginePool, driver="benchmarks.paced:PacedDriver")
        with mock.patch.dict(os.environ, {RATE: str(rate)}), mock.patch("batchinfer.engines.start.EnginePool", paced):
            report = run(reader.load(str(job), {}), data, Options(), Unattended())
        said = (data.logs / "engine.log").read_text(encoding="utf-8").rpartition(IDLE)[2]
        return report, float(said)

    def stages(self, rows: int) -> Mapping[str, float]:
        """Processor time of each stage while prompts are answered; under no name that of all else."""
        watch = Stopwatch()
        with ExitStack() as patched:
            for stage, calls in STAGES.items():
                for owner, name in calls:
                    timed = watch.within(stage, getattr(owner, name))
                    patched.enter_context(mock.patch.object(owner, name, timed))
            asked = Generator.run

            def counted(*values: Any, **named: Any) -> None:
                watch.turn("")
                watch.seconds.clear()
                asked(*values, **named)
                watch.turn("after")

            patched.enter_context(mock.patch.object(Generator, "run", counted))
            self.run(rows, AT_ONCE)
        return watch.seconds


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rates", default="50,500,1000,2000", help="rows per second of engines")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        runs = Runs(Path(temporary))
        found = runs.stages(asked.rows)
        print(f"{asked.rows} rows, {os.cpu_count()} cores")
        print(f"{'stage':<28}{'us a row':>10}")
        for name, label in [*((stage, stage) for stage in STAGES), ("", "all else")]:
            print(f"{label:<28}{found[name] / asked.rows * 1e6:>10.0f}")
        whole = sum(found[name] for name in ("", *STAGES))
        print(f"{'together':<28}{whole / asked.rows * 1e6:>10.0f}\n")
        print(f"{'rows/s of the engine':<28}{'rows':>8}{'rows/s':>10}{'it waited':>11}{'limit':>7}")
        for rate in map(float, asked.rates.split(",")):
            rows = round(rate * SECONDS)
            report, idle = runs.run(rows, rate)
            assert report.generation_seconds is not None
            waited = idle / report.generation_seconds
            print(f"{rate:<28g}{rows:>8}{report.rows_per_second:>10.1f}{waited:>11.2%}{LIMIT:>7.0%}", flush=True)


if __name__ == "__main__":
    main()
