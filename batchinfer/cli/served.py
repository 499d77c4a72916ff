"""versions, lookup: the commands that read what is served. They open neither DuckDB nor Parquet."""

from __future__ import annotations

import json

import click

from batchinfer.cli.common import emit, job_argument, json_option, pairs, served_home, table
from batchinfer.errors import NotFound, UsageError


@click.command("versions")
@job_argument
@json_option
def versions_(job: str, as_json: bool) -> None:
    """The published versions, newest first."""
    from batchinfer.publish import listing

    rows = listing(served_home(job))
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


def _mark(value: object) -> object:
    return {True: "yes", False: ""}.get(value, value) if isinstance(value, bool) else value
