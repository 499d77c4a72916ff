"""Times `batchinfer publish` of five million predictions, step by step, and measures its peak memory.

    python -m benchmarks.publish [--rows 5000000] [--output choice|json]

Limit: 2 minutes and 2 GiB on 2 cores. The job scores two choices for each key of 12 to 16 letters; with
`--output json` its predictions are JSON values, and the bodies that are served have about 500 bytes. No model is
loaded: the cache is filled by SQL. Two publishes are measured: the first one, and one on top of it after one answer in
a hundred has changed and one in a thousand is gone (and is kept from the version before). Each is a process of its
own, which runs the command line and notes when each step begins and ends.

For scale it also prints what the files of the version cost alone: DuckDB copying the same table in the same order, LMDB
appending the same entries, and SHA-256 over the files.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import lmdb

from batchinfer.cache.store import Store
from batchinfer.cache.verdicts import Verdicts
from batchinfer.cli import main as command_line
from batchinfer.core.home import JobData
from batchinfer.core.memory import table_memory
from batchinfer.inputs.query_list import QueryList
from batchinfer.job import reader
from batchinfer.planning.plan import Plan
from batchinfer.planning.prepare import Options, prepare_to_write
from batchinfer.publish import build, gate, lookup_index
from batchinfer.publish.candidate import Candidate
from batchinfer.versions import folders
from batchinfer.versions.layout import LOOKUP, PREDICTIONS

JOB = """\
name: bench_publish
input: {path: queries.parquet, key: [query]}
prompt: {template: "Is this about a vaccine? {{ query }}"}
model: {id: ./model}
on_failure: keep
"""
OUTPUTS = {
    "choice": "output: {type: choice, choices: [vaccine information, anything else at all]}\n",
    "json": "output: {type: json, schema: {type: object, properties: {names: {type: array, items: {type: string}}}}}\n",
}
# SQL for what the model said to a key, and how sure it was: `share`, from 0 to 1, stands for both.
ANSWERS = {
    "choice": """
        if(share < 0.5, 'vaccine information', 'anything else at all') AS text, '"' || text || '"' AS prediction,
        greatest(share, 1 - share) AS score, 0.98 AS mass,
        json_object('vaccine information', 1 - share, 'anything else at all', share)::VARCHAR AS scores""",
    "json": """
        json_object('names', list_transform(range(9), lambda n: 'a name for it ' || (share * 1e12)::BIGINT || n))::VARCHAR AS text,
        text AS prediction, NULL AS score, NULL AS mass, NULL AS scores""",
}
STEPS: list[tuple[Any, str, str]] = [
    (QueryList, "load", "read the list, make its keys"),
    (Store, "reread", "look for texts to read again"),
    (Verdicts, "resolve", "resolve verdicts"),
    (Plan, "__init__", "compare with the cache"),
    (Candidate, "__init__", "collect, compare with the version before"),
    (Candidate, "write", "write predictions.parquet"),
    (gate, "judge", "gate"),
    (lookup_index, "write_lookup", "write lookup.lmdb"),
    (build, "write_manifest", "manifest, with checksums"),
    (folders, "sync_files", "sync to disk"),
    (build, "check", "reopen and check"),
]


def make(folder: Path, rows: int, output: str) -> JobData:
    """A job with a list of `rows`, and a cache that holds an answer to each."""
    job_folder = folder / "bench_publish"
    (job_folder / "model").mkdir(parents=True)
    (job_folder / "model" / "config.json").write_text('{"model_type": "none"}', encoding="utf-8")
    (job_folder / "job.yaml").write_text(JOB + OUTPUTS[output], encoding="utf-8")
    duckdb.sql(
        f"COPY (SELECT left(sha256(i::VARCHAR), 4 + i % 5) || printf('%08d', i) AS query FROM range({rows}) r(i)) "
        f"TO '{job_folder / 'queries.parquet'}'"
    )
    data = JobData(folder / "home", "bench_publish")
    with prepare_to_write(reader.load(str(job_folder), {}), data, Options()) as p:
        prompt_keys = p.workspace.db.sql(f"SELECT prompt_key FROM {p.query_list.rows_sql}").to_arrow_table()
        question = p.question
    assert question is not None
    with p.store.open(write=True) as db:
        db.register("prompt_keys", prompt_keys)
        db.execute(
            f"""INSERT INTO generations BY NAME
            SELECT prompt_key AS key, ? AS fingerprint, 'stop' AS finish_reason, 40 AS prompt_tokens,
                   32 AS cached_tokens, 1 AS output_tokens, ? AS parser, 'bench' AS model, 1 AS run_id, now()::TIMESTAMP AS created_at,
                   {ANSWERS[output]}
            FROM (SELECT prompt_key, hash(prompt_key) % 999983 / 999983 AS share FROM prompt_keys)""",
            [question.fingerprint, question.parser_id],
        )
    return data


def change(data: JobData) -> None:
    """What a week may bring: one answer in a hundred is another, and one in a thousand is gone."""
    with duckdb.connect(str(data.cache)) as db:
        db.execute("DELETE FROM generations WHERE hash(key) % 1000 = 1")
        db.execute(
            "UPDATE generations SET prediction = replace(replace(prediction, 'anything', 'something'), 'name', 'term'), "
            "created_at = now()::TIMESTAMP WHERE hash(key) % 100 = 0"
        )


def child(report: Path, arguments: list[str]) -> None:
    """Runs the command line in this process, and writes down the seconds of each step and the peak of its memory."""
    seconds: dict[str, float] = {}

    def timed(action: Callable[..., Any], what: str) -> Callable[..., Any]:
        @functools.wraps(action)
        def run_timed(*given: Any, **named: Any) -> Any:
            began = time.monotonic()
            try:
                return action(*given, **named)
            finally:
                seconds[what] = seconds.get(what, 0.0) + time.monotonic() - began

        return run_timed

    for place, name, what in STEPS:
        setattr(place, name, timed(getattr(place, name), what))
    sys.argv = ["batchinfer", *arguments]
    try:
        command_line.main()
    finally:
        # Not getrusage: a new process inherits there what its parent used before it.
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
        assert peak is not None
        facts = {"steps": seconds, "peak_gib": int(peak[1]) / (1 << 20), "cores": sum(os.times()[:2])}
        report.write_text(json.dumps(facts), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Measured:
    """One publish: its seconds, in all, by step and of all cores, its peak memory, what it printed, its files in MiB."""

    took: float
    steps: dict[str, float]
    peak_gib: float
    cores: float
    said: dict[str, Any]
    files: dict[str, float]
    load: float


def measured(folder: Path, data: JobData) -> Measured:
    """Publishes what the cache has, in a process of its own."""
    report = folder / "report.json"
    command = [sys.executable, __file__, "--child", str(report)]
    command += ["--home", str(data.root), "publish", str(folder / "bench_publish"), "--json"]
    began = time.monotonic()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    took = time.monotonic() - began
    said = json.loads(done.stdout)
    version = folders.folder_of(data, said["version"])
    files = {name: (version / name).stat().st_size / (1 << 20) for name in (PREDICTIONS, LOOKUP)}
    return Measured(took=took, said=said, files=files, load=os.getloadavg()[0], **json.loads(report.read_text("utf-8")))


def alone(version: Path, folder: Path) -> dict[str, float]:
    """Seconds that the same files take with nothing around them."""
    took = {}
    began = time.monotonic()
    with duckdb.connect(str(folder / "copy.duckdb"), config={"memory_limit": f"{table_memory()}B"}) as db:
        db.execute(f"CREATE TABLE t AS FROM read_parquet('{version / PREDICTIONS}') ORDER BY hash(lookup)")
        began = time.monotonic()
        db.execute(f"COPY (FROM t ORDER BY lookup) TO '{folder / 'copy.parquet'}' (COMPRESSION zstd)")
        took["DuckDB: sort and copy the table"] = time.monotonic() - began
    took["LMDB: append the entries"] = appended(version / LOOKUP, folder / "copy.lmdb")
    began = time.monotonic()
    for name in (PREDICTIONS, LOOKUP):
        with (version / name).open("rb") as file:
            hashlib.file_digest(file, "sha256")
    took["SHA-256 of the files, once"] = time.monotonic() - began
    return took


def appended(source: Path, target: Path) -> float:
    """Seconds that LMDB takes to append what another file of it holds; reading that is not counted."""
    took = 0.0
    size = 2 * source.stat().st_size
    with (
        lmdb.open(str(source), subdir=False, readonly=True, lock=False) as old,
        lmdb.open(str(target), subdir=False, lock=False, map_size=size, sync=False) as new,
        old.begin() as reading,
    ):
        rows = iter(reading.cursor())
        while items := [item for _, item in zip(range(65_536), rows, strict=False)]:
            began = time.monotonic()
            with new.begin(write=True) as writing:
                writing.cursor().putmulti(items, append=True)
            took += time.monotonic() - began
        began = time.monotonic()
        new.sync(force=True)
        return took + time.monotonic() - began


def show(rows: int, output: str, publishes: list[Measured], peers: dict[str, float]) -> None:
    """Prints the table."""

    def line(what: str, values: Iterable[str], limit: str = "") -> None:
        print(f"{what:<48}{''.join(f'{value:>12}' for value in values)}{limit:>8}")

    line(f"{rows:,} rows, {output}", ["first", "on top"], "limit")
    line("entries", (f"{one.said['entries']:,}" for one in publishes))
    line("of them carried from the version before", (f"{one.said['carried']:,}" for one in publishes))
    line("publish (seconds)", (f"{one.took:.1f}" for one in publishes), "120")
    line("  of all cores (seconds)", (f"{one.cores:.1f}" for one in publishes))
    line("peak memory (GiB)", (f"{one.peak_gib:.2f}" for one in publishes), "2")
    for name in (PREDICTIONS, LOOKUP):
        line(f"{name} (MiB)", (f"{one.files[name]:,.0f}" for one in publishes))
    line("load of the machine at the end", (f"{one.load:.1f}" for one in publishes))
    print("\nseconds by step")
    for _, _, what in STEPS:
        line(f"  {what}", (f"{one.steps.get(what, 0.0):.1f}" for one in publishes))
    line("  all else: start, imports, clearing up", (f"{one.took - sum(one.steps.values()):.1f}" for one in publishes))
    print("\nseconds that a part takes alone")
    for what, seconds in peers.items():
        line(f"  {what}", [f"{seconds:.1f}"])


def main() -> None:
    """Measures both publishes and the peers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--output", choices=sorted(OUTPUTS), default="choice")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(Path(given.child[0]), given.child[1:])
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as temporary:
        folder = Path(temporary)
        data = make(folder, given.rows, given.output)
        publishes = [measured(folder, data)]
        change(data)
        publishes.append(measured(folder, data))
        show(given.rows, given.output, publishes, alone(folders.folder_of(data, 2), folder))


if __name__ == "__main__":
    main()
