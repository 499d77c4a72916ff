"""What `make demo` shows: a real model answers a real list, the cache answers it again, a lookup finds one.

Every step is the command line itself, printed before it runs. The data folder is .demo in the checkout:
the job's part of it is removed first, the converted model stays, so that a second demo is quick.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from batchinfer.engines.bundled import NOTICE

ROOT = Path(__file__).resolve().parents[2]
HOME = ".demo"
ANSWERS = f"{HOME}/answers.parquet"
PREPARE = f". .venv/bin/activate; export BATCHINFER_HOME={HOME}"
SHOWN = 12
CUT_OFF = 0.5
SENTENCE = "A masterpiece four years in the making."

console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Judged:
    """A sentence, the model's score of Positive, and the mean of people's ratings from -4 to 4."""

    sentence: str
    domain: str
    answer: str
    score: float
    rating: float


def main() -> None:
    """Runs the demo; ends with the exit code of the first command that fails."""
    os.chdir(ROOT)
    shutil.rmtree(Path(HOME) / "sentiment", ignore_errors=True)
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is the running command's to handle
    heading("480 real sentences, Positive or Negative? A language model answers them all, once.")
    note(f"What stands after $ you can type yourself, after: {PREPARE}")

    heading("1. Ask the model")
    batchinfer("run", "sentiment")
    first = newest_run()

    heading("2. Look at the answers")
    batchinfer("export", "sentiment", ANSWERS)
    judged = read_answers(ROOT / ANSWERS, ROOT / "jobs/sentiment/queries.parquet")
    show_sample(judged)
    show_quality(judged)

    heading("3. Ask again: the cache answers, the model is not even loaded")
    batchinfer("run", "sentiment")
    second = newest_run()
    check_cached(second)
    note(f"{first['seconds']:.0f} s the first time, {second['seconds']:.1f} s the second.")

    heading("4. Look one up, as a service would: from the published file, without model or database")
    batchinfer("lookup", "sentiment", f"sentence={SENTENCE}")

    heading("What comes next")
    show_next()


def batchinfer(*arguments: str) -> None:
    """Prints a command, then runs it in the terminal."""
    shown = " ".join(f'"{argument}"' if " " in argument else argument for argument in ("batchinfer", *arguments))
    console.print(Text(f"$ {shown}", style="bold green"))
    code = subprocess.run(command(*arguments), env=environment(), check=False).returncode
    if code != 0:
        console.print(f"The demo ends here: that command ended with exit code {code}.", style="red")
        sys.exit(code if code > 0 else 1)


def newest_run() -> dict[str, Any]:
    """The report of the run that was just made."""
    done = subprocess.run(
        command("runs", "sentiment", "--json"), env=environment(), check=True, stdout=subprocess.PIPE, text=True
    )
    report: dict[str, Any] = json.loads(done.stdout)[0]
    return report


def command(*arguments: str) -> list[str]:
    """The command line of this very Python, whatever is on the PATH."""
    return [sys.executable, "-m", "batchinfer", *arguments]


def environment() -> dict[str, str]:
    """The environment as it is, with the demo's data folder."""
    return os.environ | {"BATCHINFER_HOME": HOME}


def read_answers(answers: Path, queries: Path) -> list[Judged]:
    """The exported answers beside the list's domains and ratings, in the list's order."""
    answered = {row["sentence"]: row for row in pq.read_table(answers).to_pylist()}
    return [
        Judged(
            sentence=row["sentence"],
            domain=row["domain"],
            answer=answered[row["sentence"]]["prediction"],
            score=json.loads(answered[row["sentence"]]["scores"])["Positive"],
            rating=row["rating"],
        )
        for row in pq.read_table(queries).to_pylist()
        if row["sentence"] in answered
    ]


def area_under_curve(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """The area under the ROC curve: how often a positive one has the higher score of the two, if drawn with a negative one.

    From ranks (Mann-Whitney); equal scores share the mean of their ranks, so that a tie counts one half.
    """
    order = sorted(range(len(scores)), key=lambda i: scores[i])
    rank_sum, start = 0.0, 0
    while start < len(order):
        end = start
        while end < len(order) and scores[order[end]] == scores[order[start]]:
            end += 1
        mean_rank = (start + 1 + end) / 2
        rank_sum += mean_rank * sum(positive[i] for i in order[start:end])
        start = end
    positives = sum(positive)
    negatives = len(positive) - positives
    if not positives or not negatives:
        raise ValueError("needs at least one positive and one negative")
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def spread(judged: Sequence[Judged], count: int) -> list[Judged]:
    """`count` sentences with scores as evenly spaced as may be, the domains taking turns; highest score first."""
    domains = sorted({row.domain for row in judged})
    highest, lowest = max(row.score for row in judged), min(row.score for row in judged)
    chosen: list[Judged] = []
    for number in range(count):
        wanted = highest - number / (count - 1) * (highest - lowest)
        rest = [row for row in judged if row.domain == domains[number % len(domains)] and row not in chosen]
        chosen.append(min(rest, key=lambda row: abs(row.score - wanted)))
    return sorted(chosen, key=lambda row: -row.score)


def show_sample(judged: Sequence[Judged]) -> None:
    """A table of some sentences beside what people said."""
    table = new_table()
    table.expand = True
    table.add_column("sentence", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("from", min_width=7)
    table.add_column("answer", min_width=8)
    table.add_column("score", min_width=5, justify="right")
    table.add_column("people", min_width=6, justify="right")
    for row in spread(judged, SHOWN):
        agrees = (row.answer == "Positive") == (row.rating > 0)
        table.add_row(
            Text(row.sentence),
            row.domain,
            row.answer,
            f"{row.score:.2f}",
            Text(f"{row.rating:+.1f}", style="green" if agrees else "red"),
        )
    console.print(table)
    note("score: the probability of Positive, 0 to 1. people: the mean of 15 or more ratings, -4 to 4.")


def show_quality(judged: Sequence[Judged]) -> None:
    """The area under the ROC curve, for all and for each domain."""
    table = new_table()
    table.add_column("sentences from")
    for name in ("number", "area under the ROC curve", f"right with the cut-off at {CUT_OFF}"):
        table.add_column(name, justify="right")
    for domain in dict.fromkeys(row.domain for row in judged):
        add_quality(table, domain, [row for row in judged if row.domain == domain])
    table.add_section()
    add_quality(table, "all", judged)
    console.print(table)
    note(
        "Area: put a sentence that people rate positive beside one that they rate negative. How often does the "
        "first have the higher score? 1.0 is always, 0.5 is chance. This small model calls most of them "
        "Positive, yet orders them well: use the score, with a cut-off of your own."
    )


def add_quality(table: Table, name: str, rows: Sequence[Judged]) -> None:
    """One line of the table of quality."""
    area = area_under_curve([row.score for row in rows], [row.rating > 0 for row in rows])
    right = sum((row.score > CUT_OFF) == (row.rating > 0) for row in rows) / len(rows)
    table.add_row(name, str(len(rows)), f"{area:.3f}", f"{right:.0%}")


def check_cached(report: dict[str, Any]) -> None:
    """The second run must have generated nothing and loaded nothing."""
    if report["generated"] or report["hits"] != report["unique"] or report["engine_load_seconds"]:
        console.print("The second run should have come from the cache alone, but did not.", style="red")
        sys.exit(1)


def show_next() -> None:
    """Commands to go on with."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    for line, what in (
        ('batchinfer try sentiment sentence="Not my cup of tea."', "your own sentence; shows the prompt"),
        ("batchinfer plan fruit_families", "another job: what a run would do"),
        ("batchinfer init mine --input FILE.parquet", "a job for your own list"),
        ("batchinfer versions sentiment", "what was published, and when"),
        ("batchinfer serve", "the same look-ups over HTTP; /docs says how"),
        ("batchinfer --help", "all commands; docs/ says more"),
    ):
        table.add_row(Text(line, style="bold green"), what)
    console.print(table)
    note(f"They need, once per terminal: {PREPARE}")
    console.print()
    console.print(NOTICE)


def new_table() -> Table:
    """An empty table in the demo's style."""
    return Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))


def heading(text: str) -> None:
    """A blank line and a title."""
    console.print()
    console.print(Text(text, style="bold"))


def note(text: str) -> None:
    """A line that explains."""
    console.print(Text(text, style="dim"))


if __name__ == "__main__":
    main()
