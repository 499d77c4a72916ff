"""The same prompts by several engines: one process, two on this machine, and two actors of a Ray cluster.

    python -m benchmarks.replicas [--rows 200] [--engines one,two,ray] [--prefixes 0]

With the bundled model at temperature 0, 16 tokens an answer, and every 50th prompt too long for the model, so that it fails.
Says of each engine which failures it has, and which answers differ from the first one's. Ray's cluster is one of this machine alone.

With --prefixes 40, prompts share as many long beginnings, in the order in which a plan has them, and the KV cache has room for
four of these: says how many prompt tokens were computed over the fewest possible.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from batchinfer.core.records import Failure, Generation, Prompt
from batchinfer.engines import bundled
from batchinfer.engines.devices import place_here
from batchinfer.engines.pool import EnginePool
from batchinfer.engines.protocol import EngineConfig, Task
from batchinfer.engines.ray import ClusterRoom, RayCluster
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.job.engine_spec import RaySpec

BLOCK = 32  # tokens
PREFIX_BLOCKS, PREFIXES_HELD = 10, 4
BLOCK_BYTES = BLOCK * 30 * 2 * 3 * 64 * 2  # of the bundled model: layers, keys and values, heads, their size, bfloat16
WINDOW = 512
TOO_LONG = 50  # each prompt of such a number has more tokens than the window
WORDS = ("river", "stone", "cloud", "paper", "green", "seven", "early", "north", "apple", "quiet", "glass", "train")


def questions(tokenizer: Tokenizer, rows: int) -> list[Prompt]:
    """Chat prompts that differ, some of them too long."""
    asked = [f"Write a sentence about a {WORDS[n % 12]} {WORDS[n // 12 % 12]}, number {n}." for n in range(rows)]
    encoded = tokenizer.encode([tokenizer.text((("user", text),)) for text in asked], chat=True)
    return [
        Prompt(n.to_bytes(16), (), tuple(ids) * (1 if n % TOO_LONG else WINDOW // len(ids) + 1))
        for n, ids in enumerate(encoded)
    ]


def with_prefixes(tokenizer: Tokenizer, rows: int, prefixes: int) -> list[Prompt]:
    """Prompts in groups that share a long beginning, one group after the other."""
    found = list[Prompt]()
    for group in range(prefixes):
        [text] = tokenizer.encode(
            [f"List {group}. " + " ".join(WORDS[(group + n) % 12] for n in range(400))], chat=False
        )
        for row in range(rows // prefixes):
            [end] = tokenizer.encode([f" Row {row} of it is"], chat=False)
            found.append(Prompt(len(found).to_bytes(16), (), (*text[: PREFIX_BLOCKS * BLOCK], *end)))
    return found


def fewest(prompts: Sequence[Prompt]) -> int:
    """The prompt tokens that an endless cache would have had computed."""
    known, computed = set[tuple[int, ...]](), 0
    for prompt in prompts:
        ids = prompt.token_ids
        chain = [ids[:end] for end in range(BLOCK, len(ids) + 1, BLOCK)]
        hits = next((number for number, part in enumerate(chain) if part not in known), len(chain))
        computed += len(ids) - hits * BLOCK
        known.update(chain)
    return computed


@contextlib.contextmanager
def engine(kind: str, config: EngineConfig, log: Path) -> Iterator[EnginePool]:
    """A loaded engine: one process, two, or two actors."""
    with contextlib.ExitStack() as stack:
        if kind == "ray":
            spec = RaySpec(kind="ray", address="local", replicas=2, cpus=1)
            cluster = stack.enter_context(RayCluster(spec.address, log))
            room = ClusterRoom(spec, cluster, print)
            pool = EnginePool(config, room.places, log, launch=cluster.launch, meanwhile=room.wait)
        else:
            pool = EnginePool(config, place_here(1 if kind == "one" else 2, 1), log)
        started = stack.enter_context(pool)
        started.wait_ready()
        yield started


def main() -> None:
    """Measures, and prints a line for each engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--engines", default="one,two,ray")
    parser.add_argument("--prefixes", type=int, default=0)
    arguments = parser.parse_args()

    folder = bundled.shared_folder()
    bundled.ensure(folder, bundled.digest(), print)
    model = str(bundled.folder(folder, bundled.digest()))
    tokenizer = Tokenizer(model, None, {})
    options: dict[str, Any] = {"max_model_len": WINDOW, "block_size": BLOCK, "kv_cache_memory_bytes": 1 << 28}
    task = Task({"temperature": 0.0, "max_tokens": 16})
    prompts = questions(tokenizer, arguments.rows)
    if arguments.prefixes:
        held = PREFIXES_HELD * (PREFIX_BLOCKS + 1) * BLOCK_BYTES
        options |= {"kv_cache_memory_bytes": held, "max_num_seqs": 16}
        task = Task({"temperature": 0.0, "max_tokens": 1})
        prompts = with_prefixes(tokenizer, arguments.rows, arguments.prefixes)
    first: dict[bytes | None, str] = {}
    for kind in arguments.engines.split(","):
        with (
            tempfile.TemporaryDirectory() as logs,
            engine(kind, EngineConfig(model, options=options), Path(logs) / "log") as pool,
        ):
            began = time.monotonic()
            results = list(pool.generate(task, prompts))
            seconds = time.monotonic() - began
        assert len({result.prompt_key for result in results}) == len(results) == len(prompts)
        said = {each.prompt_key: each.reason if isinstance(each, Failure) else each.text for each in results}
        first = first or said
        alike = sum(said[key] == text for key, text in first.items())
        failures = sum(isinstance(each, Failure) for each in results)
        computed = sum(each.prompt_tokens - each.cached_tokens for each in results if isinstance(each, Generation))
        print(
            f"{kind}: {len(results)} rows, {failures} failures, {alike / len(first):.1%} as the first engine, "
            f"{len(results) / seconds:.1f} rows/s"
            + (f", {computed / fewest(prompts):.3f} of the fewest prompt tokens" if arguments.prefixes else ""),
            flush=True,
        )


if __name__ == "__main__":
    main()
