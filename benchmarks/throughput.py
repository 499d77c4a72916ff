"""Rows per second of `batchinfer run` over the bare `LLM.generate` loop, same model, settings and prompts.

    python -m benchmarks.throughput [--pairs 5] [--rows 400]

Each pair is one process that loads vLLM and calls `LLM.generate` once on all prompts, and one
`batchinfer run` of the same rows into an empty cache, in turns. Loading the engine is left out of both;
everything else that `run` does (reading, keys, rendering, tokenising, parsing, committing every chunk,
gate, publishing) is in its time. Both get the same process settings, since those alone are worth a
factor of two on CPUs (docs/performance.md). It does not show a large model on a GPU, where the share
of all that is not the model is smaller still.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.engines import bundled

MAX_TOKENS = 32
SYSTEM = "You write short descriptions."
QUESTION = "Describe thing number {i} in a few words."
OPTIONS = {"max_model_len": 1024, "max_num_seqs": 128, "kv_cache_memory_bytes": 2 << 30}
JOB = f"""\
name: bench_throughput
input: {{path: queries.parquet, key: [number]}}
prompt:
  system: {SYSTEM}
  template: "Describe thing number {{{{ number }}}} in a few words."
model: {{id: {bundled.PREFIX}{bundled.NAME}, options: {json.dumps(OPTIONS)}}}
sampling: {{temperature: 0, max_tokens: {MAX_TOKENS}, seed: 0}}
gate: {{coverage: 0, failures: 1}}
"""

BARE = """
import json, os, sys, time
from batchinfer.engines import environment
environment.hide_vision_packages()
environment.prepare_cpu(sorted(os.sched_getaffinity(0)))
os.environ["VLLM_NO_USAGE_STATS"] = "1"
model, count, max_tokens, options, system, question = json.loads(sys.argv[1])
import vllm
llm = vllm.LLM(model=model, enforce_eager=True, block_size=32, **options)
turns = [
    [{"role": "system", "content": system}, {"role": "user", "content": question.format(i=i)}] for i in range(count)
]
render = llm.get_tokenizer().apply_chat_template
prompts = [render(turn, tokenize=False, add_generation_prompt=True) for turn in turns]
began = time.monotonic()
outputs = llm.generate(prompts, vllm.SamplingParams(temperature=0, max_tokens=max_tokens, seed=0), use_tqdm=False)
seconds = time.monotonic() - began
print("RESULT", json.dumps([seconds, sum(len(output.outputs[0].token_ids) for output in outputs)]))
"""


def bare(model: Path, rows: int) -> tuple[float, int]:
    """(rows per second, output tokens) of one `LLM.generate` call on all prompts, rendered before."""
    arguments = json.dumps([str(model), rows, MAX_TOKENS, OPTIONS, SYSTEM, QUESTION])
    done = subprocess.run([sys.executable, "-c", BARE, arguments], check=True, capture_output=True, text=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    seconds, tokens = json.loads(line.removeprefix("RESULT"))
    return rows / seconds, tokens


def ours(job: Path, data: Path) -> dict[str, Any]:
    """The report of one run into an empty cache."""
    command = [sys.executable, "-m", "batchinfer", "--home", str(data), "run", str(job), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=400)
    asked = parser.parse_args()
    print(f"{asked.rows} prompts, up to {MAX_TOKENS} new tokens each, {bundled.NAME}, {os.cpu_count()} cores")
    print(f"{'pair':>4}{'bare rows/s':>13}{'run rows/s':>12}{'ratio':>8}{'generation alone':>18}{'ratio':>8}")
    ratios, alone = [], []
    with tempfile.TemporaryDirectory() as temporary:
        models = Path(temporary) / "models"
        model = bundled.ensure(models, bundled.digest(), print)
        job = Path(temporary) / "bench_throughput"
        job.mkdir()
        (job / "job.yaml").write_text(JOB, encoding="utf-8")
        pq.write_table(pa.table({"number": list(range(asked.rows))}), job / "queries.parquet")
        for pair in range(asked.pairs):
            data = Path(temporary) / f"home{pair}"
            data.mkdir()
            (data / "models").symlink_to(models)
            first = pair % 2 == 0  # each goes first in every other pair
            peer = bare(model, asked.rows)[0] if first else 0.0
            report = ours(job, data)
            peer = peer or bare(model, asked.rows)[0]
            whole = asked.rows / (report["seconds"] - report["engine_load_seconds"])
            ratios.append(whole / peer)
            alone.append(report["rows_per_second"] / peer)
            print(
                f"{pair + 1:>4}{peer:>13.2f}{whole:>12.2f}{ratios[-1]:>8.3f}"
                f"{report['rows_per_second']:>18.2f}{alone[-1]:>8.3f}", flush=True,
            )  # fmt: skip
    print(
        f"whole run / bare: median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f} (wanted: 0.95)"
    )
    print(f"generation / bare: median {statistics.median(alone):.3f}, from {min(alone):.3f} to {max(alone):.3f}")


if __name__ == "__main__":
    main()
