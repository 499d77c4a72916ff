"""Measures the time and the peak memory of every command on lists of a gigabyte, whose texts are long.

    python -m benchmarks.long_texts [--lists 20000x40000,...] [--commands plan,run,...] [--keep FOLDER]

Limit: 2.5 GiB for each command, and no failure. A list is named by its rows and the characters of each text; its files
are small, since the texts repeat themselves, but no two texts are equal. `template` has the texts in the template alone,
`key` as the lookup key, `import` as predictions that people give. Each command is a process of its own; the runs have a
scripted engine in place of a model, which gives the prompt back where the answer is to be long. It does not show how long
a model takes for such texts.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.cache.store import Store
from batchinfer.core.cost import Devices
from batchinfer.core.home import JobData
from batchinfer.core.records import Failure, Generation, Message, Prompt
from batchinfer.engines.protocol import EngineInfo, NodeWork, Task
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.job import reader
from batchinfer.pipeline import run
from batchinfer.pipeline.progress import Progress
from batchinfer.planning.prepare import Options

LISTS = ("400000x2500", "65536x12000", "20000x40000", "2000x500000", "300x5000000")
LIMIT = 2.5  # GiB
GROUP = 32 << 20  # bytes of texts in a row group
WORDS = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
    "problem",
]
GATE = "gate: {changed: 1.0, coverage: 0.0, failures: 1.0, shrink: 1.0}"
MODEL = "bundled/smollm2-135m-instruct"
COLUMNS = {
    "template": ("id", "{{ text }}", "key: [id]"), "key": ("text", "{{ text }}", "key: [text]"),
    "import": ("id", None, "key: [id]"), "echo": ("id", "{{ text }}", "key: [id]"),
}  # fmt: skip
ASKED = ("plan", "run", "publish", "review", "import-review", "export", "change", "publish-again", "diff")
STEPS = {
    "template": ASKED, "key": ASKED, "echo": ASKED,
    "import": ("import", "publish", "review", "export", "change", "publish-again", "diff"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """A command that ran: its seconds, those of all cores, the GiB of its peak memory, and whether it ended well."""

    seconds: float
    cores: float
    peak: float
    ok: bool


def texts(rows: int, size: int, first: int) -> Iterator[str]:
    """Texts that differ from each other, and can be compressed."""
    words = random.Random(1).choices(WORDS, k=4000)
    body = " ".join(words)
    body = (body * (size // len(body) + 1))[:size]
    for number in range(first, first + rows):
        yield f"{number:08d} {body}"[:size]


def write(path: Path, rows: int, size: int, names: Sequence[str], start: int = 0) -> None:
    """A Parquet file with an id and texts."""
    schema = pa.schema([("id", pa.string()), *((name, pa.string()) for name in names)])
    step = max(1, GROUP // size)
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for first in range(0, rows, step):
            count = min(step, rows - first)
            columns = [list(texts(count, size, start + first)) for _ in names]
            ids = [f"row {number}" for number in range(first, first + count)]
            writer.write_table(pa.table([ids, *columns], schema=schema))


def make(folder: Path, kind: str, rows: int, size: int) -> Path:
    """A job with its list, and for imports a file of predictions."""
    job = folder / "long"
    job.mkdir()
    _, template, key = COLUMNS[kind]
    content = [f"name: long\ninput: {{path: queries.parquet, {key}}}\non_errors: continue\n{GATE}\n"]
    if template:
        content.append(
            f"prompt: {{template: '{template}', format: completion}}\nmodel: {{id: {MODEL}, options: {{max_model_len: 1024}}}}\n"
        )
        write(job / "queries.parquet", rows, size, ["text"])
    else:
        pq.write_table(pa.table({"id": [f"row {number}" for number in range(rows)]}), job / "queries.parquet")
        write(folder / "predictions.parquet", rows, size, ["prediction"])
        write(folder / "changed.parquet", rows, size, ["prediction"], start=1)
    (job / "job.yaml").write_text("".join(content), encoding="utf-8")
    return job


class WordTokenizer(Tokenizer):
    """Counts words: a real one takes minutes for a gigabyte, and is the model's."""

    def __init__(self, *_: object) -> None:
        """Loads nothing."""

    def text(self, messages: Sequence[Message]) -> str:
        return messages[-1][1]

    def encode(self, texts: Sequence[str], *, chat: bool) -> list[list[int]]:  # noqa: ARG002 - as the real one
        return [[0] * (text.count(" ") + 1) for text in texts]


class ScriptedEngine:
    """Answers at once: with the prompt, or with a short text."""

    devices = Devices("cpu", 1)
    nodes: Mapping[str, NodeWork] = MappingProxyType({})
    waited = 0.0

    def __init__(self, *, echoes: bool) -> None:
        self._echoes = echoes

    def start(self) -> None:
        """Nothing is loaded."""

    def committed(self, keys: Iterable[bytes]) -> None:
        """Nothing is kept of what was asked."""

    def close(self) -> None:
        """Nothing was held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_ready(self) -> EngineInfo:
        return EngineInfo(1 << 40, 8, "a script")

    def generate(self, task: Task, prompts: Iterable[Prompt]) -> Iterator[Generation | Failure]:  # noqa: ARG002
        for number, prompt in enumerate(prompts):
            text = prompt.messages[-1][1] if self._echoes else f"answer {number}"
            yield Generation(prompt.prompt_key, text, "stop", len(prompt.token_ids), 0, 1)


class Silent:
    """A console that nobody reads."""

    def info(self, text: str) -> None:
        """Nothing."""

    def progress(self, progress: Progress, cached: int) -> None:
        """Nothing."""

    def confirm(self, text: str, *, typed: str | None = None) -> bool:  # noqa: ARG002
        return True


def scripted_run(home: str, job: str, *, echoes: bool) -> None:
    """A run without publishing, in this process."""
    vars(run)["Tokenizer"] = WordTokenizer
    loaded = reader.load(job, {})
    engine = ScriptedEngine(echoes=echoes)
    run.run(loaded, JobData(Path(home), loaded.name), Options(publish=False, yes=True), Silent(), engine)


def measured(command: list[str], log: Path) -> Measured:
    """Runs a command, and waits for it and its children."""
    began = time.monotonic()
    with log.open("wb") as said:
        child = os.posix_spawn(
            command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, said.fileno(), n) for n in (1, 2)]
        )
    _, status, used = os.wait4(child, 0)
    ok = os.waitstatus_to_exitcode(status) == 0
    return Measured(time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / (1 << 20), ok)


def commands(kind: str, folder: Path, job: Path) -> dict[str, list[str]]:
    """The commands of one kind, in their order; `diff` is of two versions, for which some answers are changed first."""
    home = str(folder / "home")
    program = [sys.executable, "-m", "batchinfer", "--home", home]
    review = str(folder / "review.csv")
    child = [
        sys.executable,
        "-m",
        "benchmarks.long_texts",
        "--child",
        home,
        str(job),
        "echo" if kind == "echo" else "short",
    ]
    every = {
        "plan": [*program, "plan", str(job)],
        "run": child,
        "import": [*program, "import", str(job), str(folder / "predictions.parquet")],
        "publish": [*program, "publish", str(job), "--yes"],
        "review": [*program, "review", str(job), "--out", review],
        "import-review": [*program, "import", str(job), review],
        "export": [*program, "export", str(job), str(folder / "export.parquet")],
        "change": [
            sys.executable,
            "-m",
            "benchmarks.long_texts",
            "--change",
            home,
            str(folder / "changed.parquet"),
            kind,
        ],
        "publish-again": [*program, "publish", str(job), "--yes"],
        "diff": [*program, "diff", str(job), "1", "2", "--out", str(folder / "diff.parquet")],
    }
    if kind == "import":
        every["change"] = [*program, "import", str(job), str(folder / "changed.parquet")]
    return every


ORDER = ("plan", "import", "run", "publish", "review", "import-review", "export", "change", "publish-again", "diff")


def accept(review: Path) -> None:
    """Marks each tenth row of a review as accepted, as a person would."""
    csv.field_size_limit(1 << 30)
    marked = review.with_suffix(".marked")
    with (
        review.open(encoding="utf-8-sig", newline="") as old,
        marked.open("w", encoding="utf-8-sig", newline="") as new,
    ):
        reader_, writer = csv.DictReader(old), None
        for number, row in enumerate(reader_):
            if writer is None:
                writer = csv.DictWriter(new, list(row))
                writer.writeheader()
            writer.writerow(row | {"verdict": "accept" if number % 10 == 0 else ""})
    marked.replace(review)


def change(home: str) -> None:
    """Every second answer of a run becomes another one, so that there is something to compare."""
    with Store(JobData(Path(home), "long").cache).open(write=True) as db:
        db.execute("UPDATE generations SET prediction = '\"changed\"', text = 'changed' WHERE hash(key) % 5 = 0")


def main() -> None:
    """Prints the table, a line as each command ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lists", default=",".join(LISTS))
    parser.add_argument("--kinds", default="template,key,echo,import")
    parser.add_argument("--commands", default=",".join(ORDER))
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--change", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        scripted_run(given.child[0], given.child[1], echoes=given.child[2] == "echo")
        return
    if given.change:
        change(given.change[0])
        return
    print(f"{'list':<14}{'texts':<10}{'command':<16}{'seconds':>9}{'of all cores':>14}{'peak GiB':>10}  ok", flush=True)
    for name in given.lists.split(","):
        rows, size = map(int, name.split("x"))
        for kind in given.kinds.split(","):
            with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as temporary:
                folder = Path(temporary)
                job = make(folder, kind, rows, size)
                for what, command in commands(kind, folder, job).items():
                    if what not in given.commands.split(",") or what not in STEPS[kind]:
                        continue
                    if what == "import-review":
                        accept(folder / "review.csv")
                    found = measured(command, folder / "log")
                    good = "yes" if found.ok and found.peak <= LIMIT else "NO"
                    print(
                        f"{name:<14}{kind:<10}{what:<16}{found.seconds:>9.1f}{found.cores:>14.1f}{found.peak:>10.2f}  {good}",
                        flush=True,
                    )
                    if not found.ok:
                        print((folder / "log").read_text(encoding="utf-8", errors="replace")[-1500:])


if __name__ == "__main__":
    main()
