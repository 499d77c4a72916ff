"""How long runs were to take beside how long they took, the bundled model, generating.

    python -m benchmarks.estimates [--rows 300]

One data folder. First `plan --probe` foretells the first run, of a list of short questions and some that ask for a list of
words. Then `plan` foretells the next runs by the chunks of those before, of a list that has grown, as a weekly one does: what is
new is in another mix, and groups of what it had tell how long answers are. The last list has nothing that was asked before, so
that nothing tells it. Each line has the whole command's time, loading, reading and publishing included. Nothing else of weight
should run: estimates assume that the machine is as busy as it was. Limit: the second run's within 20 %.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.engines import bundled
from benchmarks.throughput import OPTIONS

JOB = f"""\
name: bench_estimates
input: {{path: queries.parquet, key: [number, kind]}}
prompt: {{template: "{{{{ kind }}}} thing number {{{{ number }}}}."}}
model: {{id: {bundled.PREFIX}{bundled.NAME}, options: {json.dumps(OPTIONS)}}}
sampling: {{temperature: 0, max_tokens: 48, seed: 0, stop: ["\\n", "."]}}
gate: {{coverage: 0, failures: 1, shrink: 1, changed: 1}}
"""
KINDS = ("Say only yes or no about", "Describe in many words, as a list with commas, the")


def batchinfer(data: Path, *arguments: str) -> Any:
    """What a command prints."""
    command = [sys.executable, "-m", "batchinfer", "--home", str(data), *arguments, "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def rows(numbers: range, share: float) -> pa.Table:
    """share: of the rows that ask for many words."""
    kinds = [KINDS[int((number * 7919 % 1000) < 1000 * share)] for number in numbers]
    return pa.table({"number": list(numbers), "kind": kinds})


def foretold(what: str, plan: dict[str, Any], run: dict[str, Any]) -> None:
    """Prints a line."""
    estimate, took = plan["estimate"], run["seconds"]
    interval = "" if estimate["low"] is None else f"{estimate['low']:.0f} to {estimate['high']:.0f}"
    seconds = f"{estimate['seconds']:>11.1f}{interval:>13}{took:>9.1f}{estimate['seconds'] / took:>8.2f}"
    print(f"{what:<22}{plan['to_generate']:>6}{seconds}{run['rows_per_second']:>9.1f}", flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300)
    asked = parser.parse_args()
    print(f"{'':<22}{'rows':>6}{'estimate, s':>11}{'95 %':>13}{'took, s':>9}{'ratio':>8}{'rows/s':>9}")
    with tempfile.TemporaryDirectory() as temporary:
        job, data = Path(temporary) / "bench_estimates", Path(temporary) / "home"
        job.mkdir()
        data.mkdir()
        models = bundled.shared_folder()
        bundled.ensure(models, bundled.digest(), print)
        (data / "models").symlink_to(models)
        (job / "job.yaml").write_text(JOB, encoding="utf-8")
        known = rows(range(asked.rows), 0.25)
        pq.write_table(known, job / "queries.parquet")
        plan = batchinfer(data, "plan", str(job), "--probe")
        foretold("first run, by a probe", plan, batchinfer(data, "run", str(job)))
        for number, share, is_other in ((2, 0.75, False), (3, 0.5, False), (4, 0.75, True)):
            new = rows(range(asked.rows * (number - 1), asked.rows * number), share)
            known = pa.concat_tables([known, new])
            pq.write_table(new if is_other else known, job / "queries.parquet")
            plan = batchinfer(data, "plan", str(job))
            what = f"run {number}, another list" if is_other else f"run {number}"
            foretold(what, plan, batchinfer(data, "run", str(job), "--yes"))


if __name__ == "__main__":
    main()
