"""Prompt tokens that a run computes over the fewest possible, where a KV cache has room for few of the prefixes.

    python -m benchmarks.prefixes [--rows 2000] [--groups 40] [--room 4]

The list's rows are of so many groups, one after the other; each prompt begins with its group's long text. The KV cache
holds as many of these as --room says. The fewest possible is what a cache without end would leave to compute. The
bundled model scores two choices for each row.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.core.home import JobData
from batchinfer.engines import bundled, models
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.engines.vllm import CPU_BLOCK_SIZE
from batchinfer.job import reader
from batchinfer.planning.prepare import Options, prepare
from batchinfer.planning.prompts import PromptMaker
from batchinfer.planning.tokens import filled_prompts
from benchmarks.estimates import batchinfer

WORDS = 300  # of a group's text, about as many tokens
KV_BYTES = 23_040  # of a token: 30 layers, keys and values, 3 heads of 64 numbers, 2 bytes each
OPTIONS = {"max_model_len": 1024, "max_num_seqs": 128}
JOB = """\
name: bench_prefixes
input: {{path: queries.parquet, key: [number]}}
prompt: {{template: "{{{{ guide }}}}\\n\\nItem {{{{ number }}}}: {{{{ text }}}}"}}
model: {{id: {model}, options: {options}}}
output: {{type: choice, choices: [Positive, Negative]}}
gate: {{coverage: 0, failures: 1, shrink: 1, changed: 1}}
"""


def guide(group: int) -> str:
    """The group's text: no two share more than a few words."""
    return f"Guide {group}. " + " ".join(
        f"word{(group * 7919 + number * 104729) % 997}"[:6] for number in range(WORDS // 3)
    )


def token_counts(job: Path, data: Path) -> tuple[list[int], int, int]:
    """Tokens of each prompt; of the longest guide; and the fewest that can be computed."""
    opened, place = reader.load(str(job), {}), JobData(data, "bench_prefixes")
    with prepare(opened, place, Options()) as prepared:
        question = prepared.question
        assert question is not None
        tokenizer = Tokenizer(models.weights(question.identity, place, print), None, {})
        maker = PromptMaker(opened, question, tokenizer)
        prompts = [
            prompt.token_ids for prompt in maker.prompts(list(filled_prompts(prepared, prepared.plan.todo(), maker)))
        ]
    seen, computed, longest = set[tuple[int, ...]](), 0, 0
    for ids in prompts:
        most = (len(ids) - 1) // CPU_BLOCK_SIZE
        shared = next((n for n in range(most, 0, -1) if ids[: n * CPU_BLOCK_SIZE] in seen), 0)
        computed, longest = computed + len(ids) - shared * CPU_BLOCK_SIZE, max(longest, shared * CPU_BLOCK_SIZE)
        seen |= {ids[: n * CPU_BLOCK_SIZE] for n in range(1, most + 1)}
    return [len(ids) for ids in prompts], longest, computed


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--groups", type=int, default=40)
    parser.add_argument("--room", type=int, default=4)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        job, data = Path(temporary) / "bench_prefixes", Path(temporary) / "home"
        job.mkdir()
        data.mkdir()
        shared = bundled.shared_folder()
        bundled.ensure(shared, bundled.digest(), print)
        (data / "models").symlink_to(shared)
        numbers = list(range(asked.rows))
        rows = {
            "number": numbers, "guide": [guide(number % asked.groups) for number in numbers],
            "text": [f"thing {number * 31 % 1009}" for number in numbers],
        }  # fmt: skip
        pq.write_table(pa.table(rows), job / "queries.parquet")
        model = f"{bundled.PREFIX}{bundled.NAME}"
        (job / "job.yaml").write_text(JOB.format(model=model, options=json.dumps(OPTIONS)), encoding="utf-8")
        tokens, longest, fewest = token_counts(job, data)
        options = OPTIONS | {"kv_cache_memory_bytes": max(asked.room * longest, 1024) * KV_BYTES}
        (job / "job.yaml").write_text(JOB.format(model=model, options=json.dumps(options)), encoding="utf-8")
        plan = batchinfer(data, "plan", str(job))
        run = batchinfer(data, "run", str(job))
    computed = run["cost"]["prompt_tokens"] - run["cost"]["cached_tokens"]
    print(f"{asked.rows} rows, {asked.groups} prefixes of {longest} tokens, {sum(tokens):,} prompt tokens")
    print(f"KV cache: {options['kv_cache_memory_bytes'] / longest / KV_BYTES:.1f} prefixes")
    print(f"computed {computed:,}, fewest possible {fewest:,}: {computed / fewest:.3f}")
    print(f"saved: predicted {plan['prefix_saving']:.4f}, true {run['prefix_saving']:.4f}")
    print(f"generation {run['generation_seconds']} s, {run['rows_per_second']} rows/s")


if __name__ == "__main__":
    main()
