"""diff, copy, forget: the commands that look after what is published and stored."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from batchinfer.cli.common import emit, input_option, job_argument, json_option, pairs, served_home, table, tell
from batchinfer.errors import UsageError
from batchinfer.job.reader import Job

SHOWN = 20
WIDE = 60
PAIR = 2


@click.command("diff")
@job_argument
@click.argument("versions", nargs=-1, metavar="[A B]")
@click.option("--out", type=click.Path(), metavar="FILE", help="Write all differences as Parquet.")
@json_option
def diff_(job: str, versions: tuple[str, ...], out: str | None, as_json: bool) -> None:
    """What was added, removed and changed between two versions.

    A and B are numbers, rejected candidates such as r7, or current for what is served. Without them: from the version
    before the served one to that.
    """
    from batchinfer.publish.diff import compare

    if len(versions) not in (0, PAIR):
        raise UsageError("Give both versions, such as 3 5 or current r7, or none for what the served one changed.")
    found = compare(served_home(job), versions, None if out is None else Path(out).absolute(), SHOWN)
    counts = {"added": found.added, "removed": found.removed, "changed": found.changed}

    def text() -> None:
        said = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
        tell(f"From {found.start} to {found.end}: {said}.")
        if found.first:
            names = [column.name for column in found.end.manifest.key]
            table("", [*names, "change", "old", "new"], [[_cell(value) for value in row] for row in found.first])
        if found.count > len(found.first):
            tell(f"{found.count - len(found.first):,} more are not shown; --out FILE.parquet writes all.")
        if out is not None:
            tell(f"Wrote {found.count:,} rows to {out}.")

    emit({"job": found.end.manifest.job, "from": found.start.name, "to": found.end.name, **counts}, as_json, text)


@click.command("copy")
@job_argument
@click.argument("dest", type=click.Path())
@json_option
def copy_(job: str, dest: str, as_json: bool) -> None:
    """Ship the version that is served to another data folder DEST, files first, CURRENT last."""
    from batchinfer.versions.replication import ship

    home = served_home(job)
    shipped = ship(home, Path(dest).absolute(), lambda text: click.echo(text, err=True))
    if shipped.pinned is not None:
        click.echo(
            f"Version {shipped.pinned} is pinned in {dest}, and stays served there: "
            f"batchinfer --home {dest} unpin {home.name} ends that.",
            err=True,
        )
    result = {
        "job": home.name, "version": shipped.version, "destination": dest, "copied": shipped.copied, "bytes": shipped.bytes,
        "pinned": shipped.pinned,
    }  # fmt: skip
    done = f"Copied version {shipped.version} ({shipped.bytes / 1e6:,.1f} MB) to {dest}."
    there = f"{dest} has version {shipped.version} already; it is current there."
    emit(result, as_json, lambda: tell(done if shipped.copied else there))


@click.command("forget")
@job_argument
@click.argument("pair", nargs=-1, required=True, metavar="COLUMN=VALUE...")
@input_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def forget_(job: str, pair: tuple[str, ...], input_path: str | None, yes: bool, as_json: bool) -> None:
    """Remove one entry from everything: the cache, all versions and candidates, recorded misses, logs.

    What is served is rebuilt without it. Exits with 1 if nothing of it is stored.
    """
    from batchinfer.maintenance.erase import forget

    home, texts = served_home(job), pairs(pair)
    question = f"Forget {', '.join(pair)} of {home.name}, in its cache, versions, misses and logs? It cannot be undone."
    if not yes and not (sys.stdin.isatty() and click.confirm(question, err=True)):
        raise UsageError("Nothing was removed: say --yes, or answer y on a terminal.")
    given = None if input_path is None else Path(input_path).absolute()
    report = forget(_job_file(job), home, texts, given)
    emit(report, as_json, lambda: tell(_forgotten(report, ", ".join(pair))))


def _job_file(name: str) -> Job | None:
    """The job's file, if this machine has it: a data folder that versions are copied to needs none."""
    from batchinfer.job import reader

    try:
        reader.find(name)
    except UsageError:
        return None
    return reader.load(name, os.environ)


def _forgotten(report: dict[str, Any], named: str) -> str:
    counts = [f"{report[what]:,} {what}" for what in ("generations", "imports", "failures", "misses")]
    said = [f"Forgot {named}: removed {', '.join(counts)}"]
    for what, verb in (("versions_removed", "removed"), ("versions_rebuilt", "built without it")):
        if report[what]:
            said.append(f"{verb} version {', '.join(map(str, report[what]))}")
    return " ".join([f"{'; '.join(said)}.", *report["remarks"]])


def _cell(value: object) -> str | None:
    """A value, shortened if it is wide."""
    text = None if value is None else str(value)
    return text if text is None or len(text) <= WIDE else f"{text[: WIDE - 1]}…"
