"""Measures a student: how right it is beside its teacher, what soft scores gain, how fast it answers.

    python -m benchmarks.student [--sdist vaderSentiment-3.3.2.tar.gz] [--scores FILE] [--splits 5] [--embeddings FOLDER]

The texts are the tweets of the source distribution of vaderSentiment 3.3.2 (MIT; Hutto & Gilbert, ICWSM 2014) that people
rated clearly, with a mean of at least 0.5 on a scale from -4 to 4; without --sdist pip brings it. The bundled model scores
them, as jobs/sentiment asks, which takes some minutes; --scores keeps its scores in a file, and reads them there next time.
Students learn from four in five and are held against people's ratings of the others. Limits: an area under the ROC curve of
0.87, a rank correlation 0.03 better than with rounded scores, 60 µs (p50) for a text of 100 characters and 300 µs (p99) for
one of 280. With wrk, one server process on core 0 is asked from core 1, in turns, for entries, for some 6,000 texts of 100
characters that only the student knows, again and again: at least 0.4 of the rate, and for some 100,000 such texts; and what the worker
takes of its core for each, which says the same where the machine has other work. With
--embeddings, a folder or `wordllama`, a student of static embeddings is measured in place of the linear one, but for the rate. A worker
may take 15 MB for a student beside numpy. It does not show other languages, nor a text of thousands of characters.
"""

from __future__ import annotations

import argparse
import json
import runpy
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from scipy.stats import spearmanr

from batchinfer.evaluate.stats import area
from batchinfer.student.columns import HashedColumns, LearnedColumns, TokenColumns
from batchinfer.student.embeddings import read_embeddings
from batchinfer.student.file import read_student
from batchinfer.student.student import Student
from batchinfer.versions.layout import STUDENT
from benchmarks.made import JOB, make
from benchmarks.servers import SERVER_CORE, free_port, running, service
from benchmarks.serving import load, private_memory, processor_seconds, script, spread

JOBS = Path(__file__).parents[1] / "jobs"
HALF = 0.5
SHARE = 0.8  # that students learn from
CHOICES = ("Positive", "Negative")
ASKED = 5_000  # times that a text is asked
ENTRIES = 100_000  # of the version that is served
SECONDS = 5  # for which each is asked


@dataclass(frozen=True)
class Scored:
    """Tweets, the teacher's score of Positive, and people's mean ratings."""

    texts: list[str]
    scores: np.ndarray
    ratings: np.ndarray


def tweets(sdist: Path) -> pa.Table:
    """Those that people rated clearly, each once: as the script says that made the list of jobs/tweets."""
    rows = runpy.run_path(str(JOBS / "tweets" / "make_queries.py"))["clear_tweets"](sdist)
    return pa.table({"sentence": [row.sentence for row in rows], "rating": [row.rating for row in rows]})


def ask_teacher(table: pa.Table, folder: Path, to: Path) -> None:
    """The bundled model's scores, by the program itself."""
    job = yaml.safe_load((JOBS / "sentiment" / "job.yaml").read_text(encoding="utf-8"))
    job = {name: job[name] for name in ("prompt", "model", "output")} | {
        "name": "tweets", "input": {"path": "queries.parquet", "key": ["sentence"]},
    }  # fmt: skip
    (folder / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    pq.write_table(table, folder / "queries.parquet")
    batchinfer = [sys.executable, "-m", "batchinfer", "--home", str(folder / "home")]
    subprocess.run([*batchinfer, "run", str(folder), "--yes"], check=True)
    subprocess.run([*batchinfer, "export", str(folder), str(folder / "scores.parquet")], check=True)
    shutil.move(folder / "scores.parquet", to)


def read(path: Path) -> Scored:
    """What `export` wrote."""
    table = pq.read_table(path)
    scores = [json.loads(said)[CHOICES[0]] for said in table["scores"].to_pylist()]
    return Scored(table["sentence"].to_pylist(), np.array(scores), np.array(table["rating"]))


def quality(scored: Scored, splits: int, columns: LearnedColumns) -> Student:
    """Prints what students are worth; returns the last."""
    rows, positive = columns.rows(scored.texts), scored.ratings > 0
    soft = np.stack([scored.scores, 1 - scored.scores], axis=1)
    rounded = (soft >= HALF).astype(float)
    found: dict[str, list[float]] = {}
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(scored.texts))
        learned, held = np.split(order, [int(SHARE * len(order))])
        began = time.process_time()
        fitted = columns.fit(rows[learned], soft[learned], None, None)
        took = time.process_time() - began
        other = columns.fit(rows[learned], rounded[learned], None, None)
        said, said_rounded = (rows[held] @ each.weights[0] + each.bias[0] for each in (fitted, other))
        for name, value in (
            ("area, teacher", area(scored.scores[held], positive[held])),
            ("area, student (limit 0.87)", area(said, positive[held])),
            ("rank correlation, soft scores", spearmanr(said, scored.scores[held])[0]),
            ("rank correlation, rounded", spearmanr(said_rounded, scored.scores[held])[0]),
            ("fit, seconds of processor time", took),
        ):
            found.setdefault(name, []).append(float(value))
    print(f"{len(scored.texts):,} tweets, {len(learned):,} of them learned from, {splits} splits: mean (least to most)")
    for name, values in found.items():
        print(f"{name:<32} {statistics.mean(values):6.3f} ({min(values):.3f} to {max(values):.3f})")
    return read_student(columns.student(CHOICES, 0.0, fitted).to_bytes())


def latency(student: Student, texts: list[str]) -> None:
    """Prints how long texts of two lengths take, each cut from other tweets."""
    line = " ".join(texts)
    for length, limit in ((100, "p50 60"), (280, "p99 300")):
        took = []
        for number in range(ASKED):
            text = line[number * 50 : number * 50 + length]
            began = time.perf_counter()
            student(text)
            took.append((time.perf_counter() - began) * 1e6)
        cuts = statistics.quantiles(took, n=100)
        print(f"{length} characters: p50 {cuts[49]:.0f} µs, p99 {cuts[98]:.0f} µs (limit {limit} µs)")


def served(student: Student, texts: list[str], rounds: int) -> None:
    """Prints the rates of misses that it answers, over that of hits. It answers all."""
    if shutil.which("wrk") is None:
        print("wrk is not installed: the rate over HTTP is left out.")
        return
    rates, times = list[list[float]](), list[list[float]]()
    with tempfile.TemporaryDirectory(prefix="batchinfer-bench-") as name:
        folder, port = Path(name), free_port()
        make(folder / "home", ENTRIES, student=student.to_bytes())
        scripts = (
            script(folder, ENTRIES),
            _asking(folder / "few.lua", texts, 50),
            _asking(folder / "many.lua", texts, 3),
        )
        url = f"http://127.0.0.1:{port}/readyz"
        with running(service(folder / "home", port, "--workers", "1", "--no-misses"), SERVER_CORE, {}, url) as pid:
            for _ in range(rounds):
                asked = [_asked(port, pid, lua) for lua in scripts]
                rates.append([rate for rate, _ in asked])
                times.append([time for _, time in asked])
                print(
                    "hits, misses again and again, new ones: "
                    + ", ".join(f"{rate:,.0f}/s {time:.0f} µs" for rate, time in asked)
                )
            print(f"private memory of the worker: {private_memory(pid):.0f} MB")
    for what, of in (
        ("rate of", [[one / row[0] for one in row] for row in rates]),
        ("a worker's time for", [[row[0] / one for one in row] for row in times]),
    ):
        again, new = (spread([row[number] for row in of]) for number in (1, 2))
        print(f"{what} misses beside hits: {again} (limit 0.4); texts that were never asked before: {new}")


def _asked(port: int, pid: int, lua: Path) -> tuple[float, float]:
    """How many are answered in a second, and microseconds that the worker takes for one."""
    before = processor_seconds(pid)
    found = load("wrk", port, SECONDS, lua)
    assert not found.failed, found
    return found.rate, (processor_seconds(pid) - before) / found.rate / SECONDS * 1e6


def _asking(lua: Path, texts: list[str], step: int) -> Path:
    """A script that asks for texts of 100 characters, one after the other, each `step` characters further on in all tweets."""
    line = " ".join(texts)
    asked = [line[at : at + 100] for at in range(0, len(line) - 100, step)]
    urls = ", ".join(f'"/v1/jobs/{JOB}/lookup?{urlencode({"id": text})}"' for text in asked)
    lua.write_text(
        f"local urls, at = {{{urls}}}, 0\n"
        "request = function() at = at % #urls + 1 return wrk.format('GET', urls[at]) end\n"
    )
    return lua


MEMORY = """
import gc, sys
from pathlib import Path
import batchinfer.serve.app
def dirty():
    gc.collect()
    return sum(int(row.split()[1]) for row in open("/proc/self/smaps_rollup") if row.startswith("Private")) / 1000
before = dirty()
import numpy
there = dirty()
from batchinfer.versions.student import MissAnswers
answers = MissAnswers.open(Path(sys.argv[1]), "job", "text", 1)
for number in range(12_000):
    answers(f"word{number}")
for number in 2 * [*range(9_000)]:
    answers(f"some words that are asked {number}")
print(f"memory of a process that serves: numpy {there - before:.1f} MB, the student beside it {dirty() - there:.1f} MB (limit 15 MB)")
"""


def memory(student: Student) -> None:
    """Prints what a student takes beside numpy."""
    with tempfile.TemporaryDirectory(prefix="batchinfer-bench-") as name:
        (Path(name) / STUDENT).write_bytes(student.to_bytes())
        subprocess.run([sys.executable, "-c", MEMORY, name], check=True)


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sdist", type=Path)
    parser.add_argument("--scores", type=Path, help="where the teacher's scores are, or will be kept")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--embeddings", help="a folder as model2vec writes it, or wordllama: the package's own")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scores: Any = arguments.scores or folder / "kept.parquet"
        if not scores.exists():
            sdist = arguments.sdist
            if sdist is None:
                wanted = ["--no-deps", "--no-binary", ":all:", "vaderSentiment==3.3.2", "--dest", name]
                subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *wanted], check=True)
                [sdist] = folder.glob("*.tar.gz")
            ask_teacher(tweets(sdist), folder, scores)
        scored = read(scores)
    student = quality(scored, arguments.splits, columns_of(arguments.embeddings, len(scored.texts)))
    print(f"the file: {len(student.to_bytes()) / 1000:.0f} KB")
    latency(student, scored.texts)
    memory(student)
    if arguments.embeddings is None:
        served(student, scored.texts, arguments.splits)


def columns_of(embeddings: str | None, texts: int) -> LearnedColumns:
    """Those of the kind of student that is measured."""
    if embeddings is None:
        return HashedColumns(texts, len(CHOICES))
    return TokenColumns(read_embeddings(None if embeddings == "wordllama" else Path(embeddings)))


if __name__ == "__main__":
    main()
