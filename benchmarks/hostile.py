"""Asks one worker for the most that its limits allow, on versions made to cost the most, while others look up.

    python -m benchmarks.hostile [--terms 1000000] [--seconds 4]

The versions: 5,000 terms that lie within one another, 5,000 that overlap at each place, terms that name 150,000 concepts
each, as many other terms as --terms says, entries of up to 15 MB, and two with a student that answers every miss: of
two choices, and of as many as there may be, each of 1,000 characters.
One client sends a request of a kind again and again; beside it, in a process of its own, another looks single keys up.
Limits: the worker's memory grows by 300 MB, 99 of 100 look-ups of the others take 50 ms, an answer takes 10 s and has
64 MiB. An honest refusal is an answer. The first line shows how noisy the machine is.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import duckdb
import numpy as np
from rich.console import Console
from rich.table import Table

from batchinfer.core.http_limits import MAX_BODY, MAX_QUERIES, MAX_TEXTS
from batchinfer.core.sql import literal
from batchinfer.prompting.output import MOST_CHOICES
from batchinfer.student.columns import FEW_ROWS, HashedColumns, lines
from batchinfer.student.fit import Fitted
from benchmarks.builds import memory
from benchmarks.made import JOB, key_of, make
from benchmarks.servers import ROOT, free_port, running, say, service

ENTRIES, NESTED = 20_000, 5_000
EDGES = 71  # terms of so many letters at most before and behind one that is another
WIDE, CONCEPTS = 5, 150_000  # terms, and what each of them names
SIZES = {"large": 15_000_000, "megabyte": 1_000_000}  # bytes of entries, by the first letters of their keys
# of students, by the names of their jobs
CHOICES = {"student": ("yes", "no"), "student-of-many": tuple(f"{number:x<1000}" for number in range(MOST_CHOICES))}
GATE = "{coverage: 0, failures: 1, shrink: 1, changed: 1, carried: 1}"
GIB = 1024  # MB
JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Ask:
    """A request. body: None for GET."""

    path: str
    body: bytes | None = None
    gzip: bool = False


@dataclass(frozen=True, slots=True)
class Cost:
    """What some requests of one kind took.

    statuses: of the answers.
    slowest: answer, in seconds.
    largest: answer, in MB.
    grown: the worker's memory at its peak, beyond what it had, in MB.
    others: milliseconds of the others' look-ups, in order.
    """

    statuses: set[int]
    slowest: float
    largest: float
    grown: float
    others: list[float]


def publish(root: Path, job: str, rows: str, key: str, match: str = "") -> None:
    """Publishes predictions, by the program itself. rows: SQL for `key` and `prediction`."""
    folder = root / "jobs" / job
    if folder.exists():
        return
    folder.mkdir(parents=True)
    (folder / "job.yaml").write_text(
        f"name: {job}\ninput: {{path: list.parquet, key: [{key}]}}\ngate: {GATE}\n{match}", encoding="utf-8"
    )
    with duckdb.connect() as db:
        for name, columns in (("list", key), ("predictions", f"{key}, prediction")):
            db.execute(f"COPY (SELECT {columns} FROM ({rows})) TO {literal(str(folder / f'{name}.parquet'))}")
    program = [sys.executable, "-m", "batchinfer", "--home", str(root)]
    for command in (["import", str(folder), str(folder / "predictions.parquet")], ["publish", str(folder), "--yes"]):
        subprocess.run([*program, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)


def versions(root: Path, terms: int) -> None:
    """Publishes all that is asked."""
    match = "match: {terms: [id], concept: prediction}\n"
    say("Making versions …")
    if not (root / JOB).exists():
        make(root, ENTRIES)
    laughs = f"SELECT left(repeat('ha', {NESTED}), i::INT) AS id, 'laugh ' || i AS prediction FROM range(1, {NESTED + 1}) r(i)"
    publish(root, "nested", laughs, "id", match)
    crossed = "repeat('哈', i::INT) || '笑' || repeat('哈', j::INT) AS id, 'crossed ' || i || ' ' || j AS prediction"
    crossed = f"SELECT {crossed} FROM range({EDGES}) r(i), range({EDGES}) s(j)"
    publish(root, "crossed", crossed, "id", match.replace("}", ", overlaps: true}"))
    wide = f"'wide' || i AS id, j::VARCHAR AS n, 'x' AS prediction FROM range({WIDE}) r(i), range({CONCEPTS}) s(j)"
    publish(root, "wide", f"SELECT {wide}", "id, n", "match: {terms: [id], concept: n}\n")
    word = "left(translate(md5(i::VARCHAR), '0123456789', 'ghijklmnop'), 5 + i % 6)"
    words = f"SELECT {word} AS id, any_value('thing ' || i) AS prediction FROM range({terms}) r(i) GROUP BY 1"
    publish(root, "terms", words, "id", match)
    many = " UNION ALL ".join(
        f"SELECT '{name}' || i AS id, repeat('x', {size}) AS prediction FROM range({2 if name == 'large' else 30}) r(i)"
        for name, size in SIZES.items()
    )
    publish(root, "entries", many, "id")
    for job, choices in CHOICES.items():
        if not (root / job).exists():
            make(root, 1000, job=job, student=student(choices))


def student(choices: tuple[str, ...]) -> bytes:
    """One that is sure of everything, as large as students are; what it says is of no use."""
    columns = HashedColumns(FEW_ROWS, len(choices))
    weights = np.random.default_rng(0).normal(size=(lines(len(choices)), 1 << columns.bits)).astype(np.float32)
    return columns.student(choices, 0.0, Fitted(weights, np.zeros(len(weights)), 0.0)).to_bytes()


def kinds() -> dict[str, Ask]:
    """Requests at their limits, by what they are."""

    def queries(job: str, *ids: str) -> Ask:
        return Ask(f"/v1/jobs/{job}/lookup", json.dumps({"queries": [{"id": id_} for id_ in ids]}).encode())

    def texts(job: str, *sent: str) -> Ask:
        return Ask(f"/v1/jobs/{job}/match", json.dumps({"texts": sent}).encode())

    room, each = MAX_BODY - 100, (MAX_BODY - 100) // MAX_TEXTS - 20
    words = " ".join(f"{i:x}ghab{i % 97:x} abcde fghij" for i in range(room // 20))
    new = [words[i * each : (i + 1) * each] for i in range(MAX_QUERIES)]
    return {
        "nothing": Ask("/livez"),
        "1,000 look-ups": queries(JOB, *map(key_of, range(MAX_QUERIES))),
        "1,000 long keys, none found": queries(JOB, *("k" * each + str(i) for i in range(MAX_QUERIES))),
        "1,000 queries that do not fit": Ask(
            f"/v1/jobs/{JOB}/lookup", json.dumps({"queries": [{"no": "x" * 1000}] * 1000}).encode()
        ),
        "one key of 1 MB": queries(JOB, "e\u0301" * (room // 13)),
        "1 MB of brackets": Ask(f"/v1/jobs/{JOB}/lookup", b"[" * room),
        "1 MB of numbers": Ask(f"/v1/jobs/{JOB}/lookup", b"[" + b"1," * (room // 2) + b"1]"),
        "1 MB of small objects": Ask(f"/v1/jobs/{JOB}/lookup", b'{"queries":[' + b"{}," * (room // 3 - 5) + b"{}]}"),
        "a URL of 8 KB": Ask(f"/v1/jobs/{JOB}/lookup?id=" + "%C3%BC" * 1340),
        "an entry of 1 MB": Ask("/v1/jobs/entries/lookup?id=megabyte1"),
        "an entry of 15 MB": Ask("/v1/jobs/entries/lookup?id=large1"),
        "15 entries of 1 MB": queries("entries", *(f"megabyte{i}" for i in range(15))),
        "the same, compressed": Ask(*_of(queries("entries", *(f"megabyte{i}" for i in range(15)))), gzip=True),
        "1,000 entries of 1 MB": queries("entries", *(f"megabyte{i % 30}" for i in range(1000))),
        "two entries of 15 MB": queries("entries", "large0", "large1"),
        "1 MB of nested terms": texts("nested", "ha" * (room // 2)),
        "20,000 characters of nested terms": texts("nested", "ha" * 10_000),
        "1,000 texts of nested terms": texts("nested", *["ha" * (each // 2)] * MAX_TEXTS),
        "nested terms in a URL": Ask("/v1/jobs/nested/match?text=" + "ha" * 4000),
        "1 MB of crossed terms": texts("crossed", ("哈" * (EDGES - 1) + "笑") * (room // EDGES // 6)),
        "a term of 150,000 concepts": texts("wide", "wide0"),
        "all such terms": texts("wide", " ".join(f"wide{i % WIDE}" for i in range(room // 6))),
        "two such terms in a URL": Ask("/v1/jobs/wide/match?text=wide0+wide1"),
        "1 MB of words": texts("terms", words[:room]),
        "1,000 texts of words": texts("terms", *new),
        "1 MB of marks": texts("terms", "a" + "\u0301" * (room // 6)),
        "1 MB of one letter": texts("terms", "a" * room),
        "1,000 texts for a student": queries("student", *new),
        "the same, of 100 characters": queries("student", *(text[:100] for text in new)),
        "1,000 long words for a student": queries("student", *("w" * (each - 5) + str(i) for i in range(MAX_QUERIES))),
        "1 MB for a student": queries("student", words[:room]),
        "1 MB of marks for a student": queries("student", "a" + "\u0301" * (room // 6)),
        "a URL of 8 KB for a student": Ask("/v1/jobs/student/lookup?id=" + words[:8000].replace(" ", "+")),
        "1,000 texts, 128 choices": queries("student-of-many", *new),
        "100 texts, 128 choices": queries("student-of-many", *new[:100]),
        "metrics": Ask("/metrics"),
    }


def _of(ask: Ask) -> tuple[str, bytes | None]:
    return ask.path, ask.body


def send(port: int, ask: Ask) -> tuple[int, int, float]:
    """(status, bytes of the answer, seconds)."""
    headers = JSON | ({"accept-encoding": "gzip"} if ask.gzip else {})
    began = time.monotonic()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET" if ask.body is None else "POST", quote(ask.path, safe="/?=%+"), ask.body, headers)
        reply = connection.getresponse()
        return reply.status, len(reply.read()), time.monotonic() - began


def look_up(port: int) -> None:
    """What the others do, until standard input ends: looks keys up, and prints the milliseconds that each took."""
    import random
    import select

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    taken = list[float]()
    while not select.select([sys.stdin], [], [], 0.002)[0]:
        began = time.monotonic()
        connection.request("GET", f"/v1/jobs/{JOB}/lookup?id={key_of(random.randrange(ENTRIES))}")
        assert connection.getresponse().read()
        taken.append(round((time.monotonic() - began) * 1000, 3))
        if len(taken) == 1:
            print(flush=True)  # it has begun
    json.dump(taken, sys.stdout)


def cost(port: int, worker: str, ask: Ask, seconds: float) -> Cost:
    """Sends a request again and again while others look up."""
    command = [sys.executable, "-m", "benchmarks.hostile", "--others", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as others:
        assert others.stdout is not None
        others.stdout.readline()
        Path(f"/proc/{worker}/clear_refs").write_text("5", encoding="ascii")  # the peak begins again
        before, until = memory("VmRSS", worker), time.monotonic() + seconds
        answers = list[tuple[int, int, float]]()
        while time.monotonic() < until or not answers:
            answers.append(send(port, ask))
        taken, _ = others.communicate()
    grown = (memory("VmHWM", worker) - before) * GIB
    statuses, sizes, times = zip(*answers, strict=True)
    return Cost(set(statuses), max(times), max(sizes) / 1e6, grown, sorted(json.loads(taken)))


def worker_of(main: int) -> str:
    """The process that answers, a child of the service's main process: the largest."""
    children = Path(f"/proc/{main}/task/{main}/children").read_text("ascii").split()
    return max(children, key=lambda child: memory("VmRSS", child))


@contextlib.contextmanager
def served(root: Path) -> Iterator[tuple[int, str]]:
    """The service with one worker: its port, and the worker's process."""
    port = free_port()
    with running(service(root, port, "--workers", "1"), "0-1", {}, f"http://127.0.0.1:{port}/readyz") as process:
        yield port, worker_of(process)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--terms", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--only", default="", help="the kinds whose names hold this")
    parser.add_argument("--home", type=Path, help="a folder that keeps the versions for the next time")
    parser.add_argument("--others", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.others:
        look_up(given.others)
        return
    drawn = Table(title="One worker, asked for the most that it takes", title_justify="left")
    for name in ("what", "answers", "slowest, s", "largest, MB", "memory, MB", "others: p50, ms", "p99", "worst"):
        drawn.add_column(name, justify="left" if name in {"what", "answers"} else "right")
    with tempfile.TemporaryDirectory(prefix="batchinfer-bench-") as name:
        root = given.home or Path(name)
        versions(root, given.terms)
        with served(root) as (port, worker):
            for kind, ask in kinds().items():
                if given.only not in kind:
                    continue
                say(kind)
                found = cost(port, worker, ask, given.seconds)
                at = [found.others[int(len(found.others) * share)] for share in (0.5, 0.99)]
                figures = [found.slowest, found.largest, found.grown, *at, found.others[-1]]
                drawn.add_row(
                    kind, " ".join(map(str, sorted(found.statuses))), *(f"{figure:,.1f}" for figure in figures)
                )
    Console(width=140).print(drawn)


if __name__ == "__main__":
    main()
