"""Times `audit` of 76,000 filled sentences, beside a scorer that answers at once.

    python -m benchmarks.audit [--sentences 2000]

Limit: 5 s on 2 cores for an audit's own time, that is one whose answers are all in the cache. The
first audit is timed, too, less what the scorer took: it tokenises prompts and stores answers, as a
run does. The scorer stands in for a model; what it says is by chance, so that the verdicts mean nothing.
Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.core.cost import Devices
from batchinfer.core.home import JobData
from batchinfer.core.records import Generation, Prompt
from batchinfer.engines.protocol import EngineInfo, NodeWork, Task
from batchinfer.evaluate.audit import audit
from batchinfer.job import reader
from batchinfer.pipeline.progress import Progress
from batchinfer.pipeline.run import run
from batchinfer.planning.prepare import Options

JOB = """\
name: bench_audit
input: {path: queries.parquet, key: [sentence]}
prompt: {system: Answer with one word., template: "{{ sentence }}"}
model: {id: bundled/smollm2-135m-instruct, options: {max_model_len: 1024}}
output: {type: choice, choices: [Positive, Negative]}
gate: {coverage: 0}
audit: {swaps: [people.yaml], templates: [sentences.csv]}
"""
TERMS = 19  # of each of two groups
AGAIN = 5  # audits of what the cache has


class ScoresAtOnce:
    """An engine that answers each prompt by chance. seconds: that it had the turn."""

    devices = Devices("cpu", 1)
    nodes: Mapping[str, NodeWork] = MappingProxyType({})
    waited = 0.0

    def __init__(self) -> None:
        self.seconds, self._chance = 0.0, random.Random(1)

    def start(self) -> None:
        """Nothing is loaded."""

    def wait_ready(self) -> EngineInfo:
        return EngineInfo(max_model_len=1024, max_in_flight=256, description="A scorer by chance")

    def generate(self, task: Task, prompts: Iterable[Prompt]) -> Iterator[Generation]:  # noqa: ARG002
        for prompt in prompts:
            began = time.perf_counter()
            score = self._chance.uniform(0.01, 0.99)
            found = Generation(
                prompt.prompt_key, "", "length", len(prompt.token_ids), 0, 1, (math.log(score), math.log(1 - score))
            )
            self.seconds += time.perf_counter() - began
            yield found

    def committed(self, keys: Iterable[bytes]) -> None:
        """Nothing is kept of what was asked."""

    def close(self) -> None:
        """Nothing was held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Silent:
    """A console that shows nothing, and asks nobody."""

    def info(self, text: str) -> None:
        """Shows nothing."""

    def progress(self, progress: Progress, cached: int) -> None:
        """Shows nothing."""

    def confirm(self, text: str, *, typed: str | None = None) -> bool | None:  # noqa: ARG002
        return None


def make(folder: Path, sentences: int) -> None:
    """A job of one row, with a list of terms and so many sentences."""
    folder.mkdir()
    (folder / "job.yaml").write_text(JOB, encoding="utf-8")
    pq.write_table(pa.table({"sentence": ["A day like any other."]}), folder / "queries.parquet")
    groups = (f"  {name}: [{', '.join(f'{name}{number}' for number in range(TERMS))}]" for name in ("ours", "theirs"))
    (folder / "people.yaml").write_text("groups:\n" + "\n".join(groups), encoding="utf-8")
    lines = (
        f"Number {number} is what {{people}} did that day.,{('Positive', 'Negative')[number % 2]}"
        for number in range(sentences)
    )
    (folder / "sentences.csv").write_text("\n".join(["sentence,answer", *lines]), encoding="utf-8")


def main() -> None:
    """Measures, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=2000)
    sentences = parser.parse_args().sentences
    with tempfile.TemporaryDirectory() as temporary:
        make(Path(temporary) / "bench_audit", sentences)
        job = reader.load(str(Path(temporary) / "bench_audit"), {})
        data, engine = JobData(Path(temporary) / "home", job.name), ScoresAtOnce()
        run(job, data, Options(), Silent(), engine)
        engine.seconds, began = 0.0, time.perf_counter()
        generated = audit(job, data, None, Silent(), engine).generated
        first, seconds = time.perf_counter() - began - engine.seconds, list[float]()
        assert generated == sentences * TERMS * 2
        for _ in range(AGAIN):
            began = time.perf_counter()
            assert audit(job, data, None, Silent(), engine).generated == 0
            seconds.append(time.perf_counter() - began)
    print("| what | figure | limit |\n| --- | ---: | ---: |")
    print(f"| filled sentences | {generated:,} | |")
    print(f"| an audit's own time, median of {AGAIN} | {statistics.median(seconds):.1f} s | 5 s |")
    print(f"| the slowest of them | {max(seconds):.1f} s | |")
    print(f"| the first, with prompts tokenised and answers stored | {first:.1f} s | |")


if __name__ == "__main__":
    main()
