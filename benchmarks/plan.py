"""Times `batchinfer plan` of a million rows, of which the cache holds 99 %, and measures its peak memory.

    python -m benchmarks.plan [--rows 1000000] [--cached 99]

Limit: 15 s and 1.5 GiB on 2 cores. For scale it also prints how long DuckDB alone takes to read the list
and anti-join it by a plain text column, which is the least that any plan must do. It does not show the
time of a list whose rows are long texts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.core.home import JobData
from batchinfer.job import reader
from batchinfer.planning.prepare import Options, prepare_to_write

JOB = """\
name: bench_plan
input: {path: queries.parquet, key: [word, language]}
prompt:
  system: You list the names that people type into a search engine.
  template: "Names for {{ word }} in {{ language }}:"
model: {id: bundled/smollm2-135m-instruct, options: {max_model_len: 1024}}
"""
LANGUAGES = 50


def make(folder: Path, rows: int, cached: int) -> JobData:
    """A job with a list of `rows`, and a cache that holds so many of a hundred of them."""
    job_folder = folder / "bench_plan"
    job_folder.mkdir()
    (job_folder / "job.yaml").write_text(JOB, encoding="utf-8")
    words = [f"thing number {i // LANGUAGES}" for i in range(rows)]
    languages = [f"language {i % LANGUAGES}" for i in range(rows)]
    pq.write_table(pa.table({"word": words, "language": languages}), job_folder / "queries.parquet")
    data = JobData(folder / "home", "bench_plan")
    with prepare_to_write(reader.load(str(job_folder), {}), data, Options()) as p:
        prompt_keys = p.workspace.db.sql(
            f"SELECT prompt_key FROM {p.query_list.rows_sql} WHERE hash(prompt_key) % 100 < {cached}"
        ).to_arrow_table()
        question = p.question
    assert question is not None
    with p.store.open(write=True) as db:
        db.register("prompt_keys", prompt_keys)
        db.execute(
            "INSERT INTO generations BY NAME SELECT prompt_key AS key, ? AS fingerprint, 'some names' AS text, 'stop' AS finish_reason, "
            "40 AS prompt_tokens, 0 AS cached_tokens, 8 AS output_tokens, ? AS parser, '\"some names\"' AS prediction, "
            "'bench' AS model, 1 AS run_id, now()::TIMESTAMP AS created_at FROM prompt_keys",
            [question.fingerprint, question.parser_id],
        )
    return data


def least(folder: Path, cache: Path) -> float:
    """Seconds that DuckDB alone takes: read the list, hash two columns, anti-join the cache's keys."""
    began = time.monotonic()
    with duckdb.connect() as db:
        db.execute(f"ATTACH '{cache}' AS cache (READ_ONLY)")
        db.execute(
            f"SELECT count(*) FROM (SELECT unhex(left(sha256(word || language), 32)) AS key "
            f"FROM read_parquet('{folder / 'bench_plan' / 'queries.parquet'}')) ANTI JOIN cache.generations USING (key)"
        ).fetchall()
    return time.monotonic() - began


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--cached", type=int, default=99, help="of a hundred rows, so many are in the cache")
    arguments = parser.parse_args()
    rows = arguments.rows
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as temporary:
        folder = Path(temporary)
        with ProcessPoolExecutor(1, get_context("spawn")) as maker:  # a child's peak would count what its parent held
            data = maker.submit(make, folder, rows, arguments.cached).result()
        command = [
            sys.executable,
            "-m",
            "batchinfer",
            "--home",
            str(data.root),
            "plan",
            str(folder / "bench_plan"),
            "--json",
        ]
        subprocess.run(command, check=True, capture_output=True)  # warms the file cache, converts the model
        timings, peak = [], 0.0
        for _ in range(3):
            began = time.monotonic()
            with (folder / "answer").open("w+") as answer:
                process = subprocess.Popen(command, stdout=answer, stderr=subprocess.DEVNULL)
                _, status, usage = os.wait4(process.pid, 0)
            assert status == 0
            timings.append(time.monotonic() - began)
            peak = max(peak, usage.ru_maxrss / (1 << 20))
        result = json.loads((folder / "answer").read_text(encoding="utf-8"))
        print(f"{'what':<44}{'figure':>14}{'limit':>10}")
        print(f"{'rows; cached':<44}{result['rows']:>8,}; {result['hits']:,}")
        print(f"{'plan, median of 3 (seconds)':<44}{sorted(timings)[1]:>14.1f}{15:>10}")
        print(f"{'plan, slowest (seconds)':<44}{max(timings):>14.1f}{15:>10}")
        print(f"{'peak memory (GiB)':<44}{peak:>14.2f}{1.5:>10}")
        print(f"{'DuckDB alone: read, hash, anti-join (seconds)':<44}{least(folder, data.cache):>14.1f}")


if __name__ == "__main__":
    main()
