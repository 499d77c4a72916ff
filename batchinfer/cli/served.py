"""versions, pin, unpin, rollback, lookup: what is served, and which version. They open neither DuckDB nor Parquet."""

from __future__ import annotations

import json

import click

from batchinfer.cli.common import emit, job_argument, json_option, pairs, served_home, table, tell
from batchinfer.errors import NotFound, StoreError, UsageError
from batchinfer.home import JobHome


@click.command("versions")
@job_argument
@json_option
def versions_(job: str, as_json: bool) -> None:
    """The published versions, newest first."""
    from batchinfer.publish import listing

    rows = listing(served_home(job), lambda fault: click.echo(f"batchinfer: {fault}", err=True))
    columns = ["version", "created_at", "rows", "current", "pinned", "gate"]
    emit(
        rows,
        as_json,
        lambda: (
            table("", columns, [[_mark(row[name]) for name in columns] for row in rows], right=["version", "rows"])
            if rows
            else click.echo("No version is published yet: batchinfer run makes one.")
        ),
    )


@click.command("pin")
@job_argument
@click.argument("version", type=click.IntRange(min=1), metavar="N")
@json_option
def pin_(job: str, version: int, as_json: bool) -> None:
    """Serve version N, whatever is published, until it is unpinned. Works beside a run."""
    from batchinfer.publish import pin

    home = served_home(job)
    pin(home, version)
    _emit_served(
        home,
        version,
        version,
        as_json,
        f"Version {version} is pinned: it is served until batchinfer unpin {home.name}.",
    )


@click.command("unpin")
@job_argument
@json_option
def unpin_(job: str, as_json: bool) -> None:
    """Serve the current version again. Works beside a run."""
    from batchinfer.publish import pointer, unpin

    home = served_home(job)
    said = "The pin is gone" if unpin(home) else "Nothing was pinned"
    current = None
    try:
        current = pointer(home)
        now = "nothing is published." if current is None else f"version {current.version} is served."
    except StoreError as exc:  # the pin is gone all the same
        now = str(exc)
    _emit_served(home, None if current is None else current.version, None, as_json, f"{said}: {now}")


@click.command("rollback")
@job_argument
@json_option
def rollback_(job: str, as_json: bool) -> None:
    """Pin the newest whole version below the one that is served. Works beside a run."""
    from batchinfer.publish import roll_back

    home = served_home(job)
    was, now = roll_back(home)
    said = f"Version {now} is pinned and served in place of {was}, until batchinfer unpin {home.name}."
    _emit_served(home, now, now, as_json, said)


@click.command("lookup")
@job_argument
@click.argument("pair", nargs=-1, required=True, metavar="COLUMN=VALUE...")
@json_option
def lookup_(job: str, pair: tuple[str, ...], as_json: bool) -> None:
    """One prediction, from the version that is served. Exits with 1 if there is none."""
    from batchinfer.keys import typed
    from batchinfer.publish import folder_of, served
    from batchinfer.snapshot import Snapshot

    home = served_home(job)
    found = served(home)
    texts = pairs(pair)
    with Snapshot(folder_of(home, found.version), digest=found.manifest) as snapshot:
        columns = {column.name: column for column in snapshot.manifest.key}
        unknown = [name for name in texts if name not in columns]
        if unknown:
            raise UsageError(f"{unknown[0]} is not part of the lookup key, which is {', '.join(columns)}.")
        body = snapshot.get({name: typed(text, columns[name]) for name, text in texts.items()})
    if body is None:
        raise NotFound(f"{home.name} has no prediction for {', '.join(pair)} in version {found.version}.")
    click.echo(body.decode() if as_json else json.dumps(json.loads(body), indent=2, ensure_ascii=False))


def _emit_served(home: JobHome, version: int | None, pinned: int | None, as_json: bool, sentence: str) -> None:
    """Says what is served after a change of the pin."""
    emit({"job": home.name, "version": version, "pinned": pinned}, as_json, lambda: tell(sentence))


def _mark(value: object) -> object:
    return {True: "yes", False: ""}.get(value, value) if isinstance(value, bool) else value
