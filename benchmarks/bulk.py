"""A list from start to answers on disk: `batchinfer run` beside `vllm run-batch` and Ray Data LLM, as whole processes.

    python -m benchmarks.bulk [--rows 200] [--distinct 200] [--rounds 2] [--without ray]

All ask the bundled model the same chat prompts with the same sampling, in turns, and write the answers to a file; loading
the model is part of it. Peers run at their own defaults, and once more with the settings that this program has for CPUs
(cores, OpenMP, no compilation, blocks). --rows 1000 --distinct 400 is a list of which 60 % are duplicates: peers ask each.
The last line is the time to the first answer: a run of one row, from its start to its end. Needs the extra ray for Ray's.
Limits: 2.5 times as fast as run-batch and 4 times as Ray at their defaults; 5 times with duplicates; 10 seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.engines import bundled, environment
from benchmarks.throughput import JOB, MAX_TOKENS, QUESTION, SYSTEM

EAGER = {"enforce_eager": True, "block_size": 32, "max_num_seqs": 128, "max_model_len": 1024}
LIMITS = {"vllm run-batch": 2.5, "Ray Data LLM": 4.0}
PEERS = {
    "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "2",
    "PYTHONPATH": str(environment.WITHOUT_VISION),  # torchvision's CUDA build would end them
}  # fmt: skip

RAY = """
import json, sys
import ray
from ray.data.llm import build_processor, vLLMEngineProcessorConfig
model, source, target, sampling, options = json.loads(sys.argv[1])
ray.init(num_cpus=8, include_dashboard=False, logging_level="ERROR")
config = vLLMEngineProcessorConfig(
    model_source=model, engine_kwargs=options, concurrency=1, log_engine_metrics=False,
    placement_group_config={"bundles": [{"CPU": 1, "GPU": 0}]},
)
processor = build_processor(
    config, preprocess=lambda row: {"messages": json.loads(row["messages"]), "sampling_params": sampling},
    postprocess=lambda row: {"answer": row["generated_text"]},
)
processor(ray.data.read_parquet(source)).write_parquet(target)
"""


def turns(number: int) -> list[dict[str, str]]:
    """The chat of a row."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION.format(i=number)}]


def own_settings() -> dict[str, str]:
    """What this program sets in an engine's environment on CPUs, for processes that are started again."""
    library = environment.intel_openmp()
    return {"VLLM_CPU_NUM_OF_RESERVED_CPU": "0"} | ({"LD_PRELOAD": str(library)} if library else {})


def seconds_of(command: list[str], more: dict[str, str] | None = None) -> float:
    """The time of a whole process. What it prints is shown if it fails."""
    began = time.monotonic()
    done = subprocess.run(command, env=os.environ | (more or {}), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return time.monotonic() - began


class Contest:
    """One list, and those who answer it."""

    def __init__(self, folder: Path, rows: int, distinct: int) -> None:
        self._folder, self._numbers, self._runs = folder, [row % distinct for row in range(rows)], 0
        self._models = folder / "models"
        self._model = bundled.ensure(self._models, bundled.digest(), lambda _: None)
        self._job = folder / "bench_throughput"
        self._job.mkdir()
        (self._job / "job.yaml").write_text(JOB, encoding="utf-8")
        pq.write_table(pa.table({"number": self._numbers}), self._job / "queries.parquet")
        chats = [json.dumps(turns(number)) for number in self._numbers]
        pq.write_table(pa.table({"messages": chats}), folder / "chats.parquet")
        with (folder / "requests.jsonl").open("w", encoding="utf-8") as file:
            for place, number in enumerate(self._numbers):
                body = {
                    "model": str(self._model),
                    "messages": turns(number),
                    "max_tokens": MAX_TOKENS,
                    "temperature": 0,
                }
                request = {"custom_id": str(place), "method": "POST", "url": "/v1/chat/completions", "body": body}
                file.write(json.dumps(request) + "\n")

    def take_turns(self, peers: Mapping[str, Callable[..., float]], rounds: int) -> dict[str, list[float]]:
        """The seconds of each in each round, told on standard error as they come."""
        took = dict[str, list[float]]()
        for number in range(1, rounds + 1):
            entrants = {"batchinfer run": self.ours}
            for name, peer in peers.items():
                entrants |= {name: partial(peer, tuned=False), f"{name}, our CPU settings": partial(peer, tuned=True)}
            for name, entrant in entrants.items():
                took.setdefault(name, []).append(entrant())
                print(f"round {number}, {name}: {took[name][-1]:.1f} s", file=sys.stderr, flush=True)
        return took

    def ours(self, limit: int | None = None) -> float:
        """Into an empty cache. limit: rows, if not all."""
        self._runs += 1
        data = self._folder / f"home{self._runs}"
        data.mkdir()
        (data / "models").symlink_to(self._models)
        command = [sys.executable, "-m", "batchinfer", "--home", str(data), "run", str(self._job), "--json"]
        return seconds_of(command + ([] if limit is None else ["--limit", str(limit)]))

    def run_batch(self, *, tuned: bool) -> float:
        """The answers must be as many as the requests."""
        target = self._folder / "answers.jsonl"
        command = [
            sys.executable,
            "-m",
            "vllm.entrypoints.openai.run_batch",
            "-i",
            str(self._folder / "requests.jsonl"),
        ]
        command += ["-o", str(target), "--model", str(self._model)]
        if tuned:
            command += ["--enforce-eager", "--block-size", "32", "--max-num-seqs", "128", "--max-model-len", "1024"]
        took = seconds_of(command, PEERS | (own_settings() if tuned else {}))
        assert len(target.read_text(encoding="utf-8").splitlines()) == len(self._numbers)
        return took

    def ray_data(self, *, tuned: bool) -> float:
        """The answers must be as many as the rows."""
        target = self._folder / f"answers{time.monotonic_ns()}"
        options = EAGER if tuned else {"max_model_len": 1024}
        sampling = {"temperature": 0, "max_tokens": MAX_TOKENS}
        asked = json.dumps([str(self._model), str(self._folder / "chats.parquet"), str(target), sampling, options])
        took = seconds_of([sys.executable, "-c", RAY, asked], PEERS | (own_settings() if tuned else {}))
        assert pq.read_table(target).num_rows == len(self._numbers)
        return took


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--distinct", type=int, default=200, help="of them; the others are duplicates")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--without", choices=["ray", "run-batch"], action="append", default=[])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        contest = Contest(Path(temporary), asked.rows, min(asked.distinct, asked.rows))
        peers: dict[str, Callable[..., float]] = {}
        if "run-batch" not in asked.without:
            peers["vllm run-batch"] = contest.run_batch
        if "ray" not in asked.without:
            peers["Ray Data LLM"] = contest.ray_data
        took = contest.take_turns(peers, asked.rounds)
        first = contest.ours(limit=1)
    ours = statistics.median(took["batchinfer run"])
    print(
        f"{asked.rows} rows, {min(asked.distinct, asked.rows)} of them different, {asked.rounds} rounds, {os.cpu_count()} cores"
    )
    print(f"{'from start to answers on disk':<36}{'seconds':>10}{'of ours':>9}  least to most")
    for name, times in took.items():
        limit = f"  wanted: {5.0 if asked.distinct < asked.rows else LIMITS[name]}" if name in LIMITS else ""
        spread = f"{min(times) / ours:.2f} to {max(times) / ours:.2f}"
        print(f"{name:<36}{statistics.median(times):>10.1f}{statistics.median(times) / ours:>9.2f}  {spread}{limit}")
    print(f"{'one row, from start to end':<36}{first:>10.1f}           wanted: 10")


if __name__ == "__main__":
    main()
