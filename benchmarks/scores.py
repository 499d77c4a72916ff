"""Rows per second of scores: a choice of one token, choices as wholes, and likelihoods, of the same prompts.

    python -m benchmarks.scores [--rows 200] [--rounds 5]

One engine with the bundled model takes all kinds in turns. Prompts share no prefix and end with the same
question; no answer is in any cache. The whole choices are two of two to three tokens, and so are
the texts whose likelihood is asked for. What `run` does beside the engine is left out.
It does not show a vocabulary of 150,000 tokens, with which the positions of a prompt cost more.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from batchinfer.core.records import Continuation, Prompt
from batchinfer.engines import bundled
from batchinfer.engines.devices import place_here
from batchinfer.engines.pool import EnginePool
from batchinfer.engines.protocol import EngineConfig, Task
from batchinfer.engines.tokenizer import Tokenizer
from benchmarks.serving import spread

WORDS = 40  # of a prompt
LETTERS = "abcdefghijklmnoprstuvw"
CHOICES = ("drupe", "drupelet")
FIRST_TOKEN, WHOLE, LIKELIHOOD = "choice of one token", "two whole choices", "likelihood"


def texts(rows: int, seed: int) -> Iterator[str]:
    """Texts that share no beginning, with anything in them."""
    drawn = random.Random(seed)
    for _ in range(rows):
        yield " ".join("".join(drawn.choices(LETTERS, k=drawn.randint(2, 7))) for _ in range(WORDS)) + " is called:"


def prompts(tokenizer: Tokenizer, rows: int, seed: int, scored: tuple[Continuation, ...]) -> list[Prompt]:
    """Prompts with these continuations."""
    encoded = tokenizer.encode(list(texts(rows, seed)), chat=False)
    return [Prompt(number.to_bytes(16), (), tuple(ids), scored) for number, ids in enumerate(encoded)]


def main() -> None:
    """Measures, and prints a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    folder = bundled.shared_folder()
    bundled.ensure(folder, bundled.digest(), print)
    model = str(bundled.folder(folder, bundled.digest()))
    tokenizer = Tokenizer(model, None, {})
    whole = tuple(Continuation(ids) for ids in tokenizer.in_place(CHOICES, chat=False))
    first = tuple(ids[0] for ids in tokenizer.in_place(["drupe", "nut"], chat=False))
    kinds: dict[str, tuple[Task, tuple[Continuation, ...]]] = {
        FIRST_TOKEN: (Task({"temperature": 0.0}, score_tokens=first), ()),
        WHOLE: (Task({"temperature": 0.0}, score_continuations=True), whole),
        LIKELIHOOD: (Task({"temperature": 0.0}, score_continuations=True), whole[1:]),
    }
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    config = EngineConfig(model, options={"max_model_len": 512})
    with tempfile.TemporaryDirectory() as logs, EnginePool(config, place_here("auto", 1), Path(logs) / "log") as pool:
        pool.wait_ready()
        for number in range(arguments.rounds + 1):  # the first warms up
            for place, (name, (task, scored)) in enumerate(kinds.items()):
                asked = prompts(tokenizer, arguments.rows, number * len(kinds) + place, scored)
                began = time.monotonic()
                assert len(list(pool.generate(task, asked))) == arguments.rows
                rates[name].append(arguments.rows / (time.monotonic() - began))
    print(f"{sum(len(prompt.token_ids) for prompt in asked) / arguments.rows:.0f} tokens per prompt")
    for name, measured in rates.items():
        ratios = [rate / base for rate, base in zip(measured[1:], rates[FIRST_TOKEN][1:], strict=True)]
        print(f"{name}: {spread(measured[1:], 1)} rows/s, {spread(ratios)} of a choice of one token")


if __name__ == "__main__":
    main()
