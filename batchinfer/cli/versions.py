"""versions, pin, unpin, rollback, diff, copy: which versions there are, and which is served."""

from __future__ import annotations

import click

from batchinfer.cli.opening import served_data
from batchinfer.cli.options import format_option, job_argument, json_option, output_file
from batchinfer.cli.tables import cell, table
from batchinfer.cli.terminal import emit, tell, teller, warn
from batchinfer.cli.values import Integer, PathText
from batchinfer.core.sizes import size_text
from batchinfer.errors import UsageError, counted

SHOWN_DIFFERENCES = 20
PAIR = 2


@click.command("versions")
@job_argument
@json_option
def versions_(job: str, as_json: bool) -> None:
    """The published versions, newest first. Clients get the one that is served."""
    from batchinfer.versions.pointers import list_versions

    rows = list_versions(served_data(job), lambda fault: warn(f"batchinfer: {fault}"))
    columns = ["version", "created_at", "rows", "served", "current", "pinned", "gate"]
    listed = [row.to_json() for row in rows]
    cells = [[_mark(row[name]) for name in columns] for row in listed]
    emit(listed, as_json, lambda: table("", columns, cells, right=["version", "rows"]))


@click.command("pin")
@job_argument
@click.argument("version", type=Integer(min=1), metavar="N")
@json_option
def pin_(job: str, version: int, as_json: bool) -> None:
    """Serve version N, whatever is published, until it is unpinned. Works during a run."""
    from batchinfer.versions.pointers import pin

    done = pin(served_data(job), version)
    said = f"Version {version} is pinned: it is served until batchinfer unpin {done.job}."
    emit(done.to_json(), as_json, lambda: tell(said))


@click.command("unpin")
@job_argument
@json_option
def unpin_(job: str, as_json: bool) -> None:
    """Serve the current version again. Works during a run."""
    from batchinfer.versions.pointers import unpin

    data = served_data(job)
    done = unpin(data)
    said = "Unpinned" if done.was_pinned else "Nothing was pinned"
    served = f"nothing is published in {data.root}." if done.version is None else f"version {done.version} is served."
    emit(done.to_json(), as_json, lambda: tell(f"{said}: {done.problem or served}"))


@click.command("rollback")
@job_argument
@json_option
def rollback_(job: str, as_json: bool) -> None:
    """Pin the newest whole version below the one that is served. Works during a run."""
    from batchinfer.versions.pointers import roll_back

    done = roll_back(served_data(job))
    said = f"Version {done.version} is pinned and served in place of {done.before}, until batchinfer unpin {done.job}."
    emit(done.to_json(), as_json, lambda: tell(said))


def _mark(value: object) -> object:
    return {True: "yes", False: ""}.get(value, value) if isinstance(value, bool) else value


@click.command("diff")
@job_argument
@click.argument("versions", nargs=-1, metavar="[A B]")
@click.option(
    "--out",
    type=PathText(),
    metavar="FILE",
    help="Write all differences: .parquet, .csv or .jsonl; - for standard output.",
)
@format_option()
@json_option
def diff_(job: str, versions: tuple[str, ...], out: str | None, chosen: str | None, as_json: bool) -> None:
    """What was added, removed and changed between two versions.

    A and B are numbers, rejected candidates such as r7, or current for what is served. Without them: from the version
    before the served one to that.
    """
    from batchinfer.publish.diff import compare

    if len(versions) not in (0, PAIR):
        raise UsageError("Give both versions, such as 3 5 or current r7, or none for what the served one changed.")
    if out is None and chosen is not None:
        raise UsageError("--format goes with --out - alone: the ending of a file says its format.")
    output = None if out is None else output_file(out, chosen, as_json)
    found = compare(served_data(job), versions, output, SHOWN_DIFFERENCES)
    say = teller(output)

    def text() -> None:
        say(
            f"From {found.start} to {found.end}: "
            f"{found.added:,} added, {found.removed:,} removed, {found.changed:,} changed."
        )
        if found.first and say is tell:
            names = [column.name for column in found.end.manifest.key]
            rows = [[cell(value) for value in row] for row in found.first]
            table("", [*names, "change", "old", "new"], rows, free=[*names, "old", "new"])
        if found.count > len(found.first) and out is None:
            tell(f"{found.count - len(found.first):,} more are not shown; --out FILE.csv writes all.")
        if out is not None:
            say(f"Wrote {counted(found.count, 'row')} to {output}.")

    emit(found.to_json(), as_json, text)


@click.command("copy")
@job_argument
@click.argument("dest", type=PathText())
@json_option
def copy_(job: str, dest: str, as_json: bool) -> None:
    """Copy the version that is served to another data folder DEST, files first, CURRENT last."""
    from batchinfer.versions.replication import replicate

    data = served_data(job)
    copied = replicate(data, dest, warn)
    if copied.pinned is not None:
        warn(
            f"Version {copied.pinned} is pinned in {dest}, and stays served there: "
            f"batchinfer --home {dest} unpin {data.name} ends that."
        )
    done = f"Copied version {copied.version} ({size_text(copied.bytes)}) to {dest}."
    there = f"{dest} has version {copied.version} already; it is current there."
    emit(copied.to_json(), as_json, lambda: tell(done if copied.copied else there))
