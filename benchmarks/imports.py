"""Times `batchinfer import` of ten million predictions, and measures its peak memory; then the same of publishing them.

    python -m benchmarks.imports [--rows 10000000] [--output text|json] [--form parquet|csv]

Limit: 1.5 GiB for the import. The file has a key of 14 to 20 letters, a prediction and a score; with `--output json` a
prediction is JSON with two names, which is read and written again, value by value. The job's own list has one row. Each
command is a process of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import duckdb

JOB = """\
name: bench_imports
input: {path: queries.parquet, key: [query]}
"""
OUTPUTS = {"text": "", "json": "output: {type: json, schema: {type: object}}\n"}
KEY = "left(sha256(i::VARCHAR), 6 + i % 7) || printf('%08d', i) AS query"
# SQL for what was predicted elsewhere for the row i.
PREDICTIONS = {
    "text": "'a text that is predicted for ' || i",
    "json": "json_object('names', ['a name of ' || i, 'ein Name für ' || i])::VARCHAR",
}
FORMS = {"parquet": "FORMAT parquet", "csv": "FORMAT csv, HEADER"}


def make(folder: Path, rows: int, output: str, form: str) -> tuple[Path, Path]:
    """A job, and a file to be imported."""
    job = folder / "bench_imports"
    job.mkdir()
    (job / "job.yaml").write_text(JOB + OUTPUTS[output], encoding="utf-8")
    duckdb.sql(f"COPY (SELECT {KEY} FROM range(1) r(i)) TO '{job / 'queries.parquet'}'")
    file = folder / f"predictions.{form}"
    duckdb.sql(
        f"COPY (SELECT {KEY}, {PREDICTIONS[output]} AS prediction, i % 1000 / 1000 AS score FROM range({rows}) r(i)) "
        f"TO '{file}' ({FORMS[form]})"
    )
    return job, file


def measured(data: Path, *arguments: str) -> tuple[float, float, float]:
    """Runs a command of batchinfer; returns its seconds, those of all cores, and the GiB of its peak memory."""
    began = time.monotonic()
    command = [sys.executable, "-m", "batchinfer", "--home", str(data), *arguments]
    child = os.posix_spawn(command[0], command, os.environ)
    _, status, used = os.wait4(child, 0)
    if status:
        raise SystemExit(f"batchinfer {' '.join(arguments)} failed.")
    return time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / (1 << 20)


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--output", choices=sorted(OUTPUTS), default="text")
    parser.add_argument("--form", choices=sorted(FORMS), default="parquet")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as temporary:
        folder = Path(temporary)
        job, file = make(folder, given.rows, given.output, given.form)
        data = folder / "home"
        print(f"{given.rows:,} rows, {given.output}, {given.form} of {file.stat().st_size / (1 << 20):,.0f} MiB")
        print(f"{'':<10}{'seconds':>12}{'of all cores':>14}{'rows/s':>12}{'peak GiB':>12}")
        for arguments in (["import", str(job), str(file), "--allow", "keys"], ["publish", str(job)]):
            seconds, cores, peak = measured(data, *arguments)
            print(f"{arguments[0]:<10}{seconds:>12.1f}{cores:>14.1f}{given.rows / seconds:>12,.0f}{peak:>12.2f}")
        print(f"cache.duckdb: {(data / 'bench_imports' / 'cache.duckdb').stat().st_size / (1 << 20):,.0f} MiB")
        print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
