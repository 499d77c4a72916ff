"""Times `batchinfer distill` of a million rows, and measures its peak memory.

    python -m benchmarks.distilling [--rows 1000000]

Limits on 2 cores: 10 seconds for 3,000 rows; 10 minutes and 3 GiB for a million. Texts have twelve made words of four to
eight letters, of which a few are frequent, and scores follow the words. No model is loaded: the cache is filled by SQL. It is
the command line in a process of its own. Processor time says more than the clock where others use the machine.
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

from batchinfer.core.home import JobData
from batchinfer.job import reader
from batchinfer.planning.prepare import Options, prepare_to_write

JOB = """\
name: bench_distill
input: {path: queries.parquet, key: [text]}
prompt: {template: "Is this good? {{ text }}"}
model: {id: ./model}
output: {type: choice, choices: [good, bad]}
student: {text: text}
"""
WORDS = 12
# The fifth power of a share is drawn, so that a few words are frequent.
DRAWN = "pow(hash(i * 12 + j) % 999983 / 999983, 5) * 30000"
TEXTS = f"""
    SELECT list_aggregate([left(translate(sha256((({DRAWN})::INTEGER)::VARCHAR), '0123456789', 'ghijklmnop'),
        (4 + ({DRAWN})::INTEGER % 5)::INTEGER) FOR j IN range({WORDS})], 'string_agg', ' ') || ' ' || i AS text FROM range(?) r(i)"""
ANSWERS = """
    SELECT prompt_key AS key, ? AS fingerprint, 'stop' AS finish_reason, 40 AS prompt_tokens, 32 AS cached_tokens, 1 AS output_tokens,
        ? AS parser, 'bench' AS model, 1 AS run_id, now()::TIMESTAMP AS created_at, if(share < 0.5, 'bad', 'good') AS text,
        '"' || text || '"' AS prediction, greatest(share, 1 - share) AS score, 0.98 AS mass,
        json_object('good', share, 'bad', 1 - share)::VARCHAR AS scores
    FROM (SELECT prompt_key, 1 / (1 + exp(-list_sum([hash(word) % 2001 / 1000 - 1 FOR word IN string_split(words, ' ')]))) AS share
        FROM known)"""


def make(folder: Path, rows: int) -> JobData:
    """A job with a list of `rows`, and a cache that holds an answer to each."""
    job_folder = folder / "bench_distill"
    (job_folder / "model").mkdir(parents=True)
    (job_folder / "model" / "config.json").write_text('{"model_type": "none"}', encoding="utf-8")
    (job_folder / "job.yaml").write_text(JOB, encoding="utf-8")
    duckdb.execute(f"COPY ({TEXTS.replace('?', str(rows))}) TO '{job_folder / 'queries.parquet'}'")
    data = JobData(folder / "home", "bench_distill")
    with prepare_to_write(reader.load(str(job_folder), {}), data, Options()) as p:
        known = p.workspace.db.sql(f"SELECT prompt_key, q_text AS words FROM {p.query_list.rows_sql}").to_arrow_table()
        question = p.question
    assert question is not None
    with p.store.open(write=True) as db:
        db.register("known", known)
        db.execute(f"INSERT INTO generations BY NAME {ANSWERS}", [question.fingerprint, question.parser_id])
    return data


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[3_000, 1_000_000])
    for rows in parser.parse_args().rows:
        with tempfile.TemporaryDirectory(prefix="batchinfer-bench-") as name:
            folder = Path(name)
            # A child's peak would count what its parent held, so another process makes the list.
            with ProcessPoolExecutor(1, get_context("spawn")) as maker:
                maker.submit(make, folder, rows).result()
            command = [
                sys.executable,
                "-m",
                "batchinfer",
                "--home",
                str(folder / "home"),
                "distill",
                str(folder / "bench_distill"),
                "--json",
            ]
            with (folder / "report.json").open("wb") as report:
                began, child = time.perf_counter(), subprocess.Popen(command, stdout=report)
                _, status, used = os.wait4(child.pid, 0)
                took = time.perf_counter() - began
            child.returncode = os.waitstatus_to_exitcode(status)
            assert child.returncode == 0
            said = json.loads((folder / "report.json").read_bytes())
        print(
            f"{rows:,} rows: {took:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of processor time, peak {used.ru_maxrss / 2**20:.2f} GiB"
        )
        print(
            f"  {said['learned']:,} learned; as the model {said['student']['agreement']:.1%}, most frequent {said['most_frequent']:.1%}"
        )


if __name__ == "__main__":
    main()
