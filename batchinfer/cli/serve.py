"""serve, keys: the lookup service and who may ask it."""

from __future__ import annotations

import contextlib
import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchinfer.cli.opening import data_dir
from batchinfer.cli.options import json_option, yes_option
from batchinfer.cli.tables import table
from batchinfer.cli.terminal import Terminal, emit, warn
from batchinfer.cli.usage import Group
from batchinfer.cli.values import Integer
from batchinfer.core.home import check_job_name, job_names, require_folder
from batchinfer.core.outlet import STDERR, STDOUT
from batchinfer.core.person import ask
from batchinfer.errors import MissingExtra, StoreError, UsageError, counted

if TYPE_CHECKING:
    from batchinfer.serve.apikeys import Record
    from batchinfer.serve.server import Started

MOST_WORKERS = 4


@click.command("serve")
@click.option("--host", metavar="HOST", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=Integer(1, 65535), metavar="PORT", default=8080, show_default=True, help="The port to listen on."
)
@click.option(
    "--workers",
    type=Integer(min=1),
    metavar="N",
    help=f"Processes.  [default: one a core, at most {MOST_WORKERS}]",
)
@click.option(
    "--require-keys", is_flag=True, help="Require API keys from the start, also on loopback and before there is one."
)
@click.option("--no-auth", is_flag=True, help="Require no API keys from anybody who can reach the address.")
@click.option("--no-misses", is_flag=True, help="Do not record what was asked for and not found.")
@click.option("--access-log", is_flag=True, help="Write a line of JSON for each request to stdout.")
@json_option
def serve_(host: str, port: int, workers: int | None, require_keys: bool, no_auth: bool, no_misses: bool, access_log: bool,
           as_json: bool) -> None:  # fmt: skip
    """Serve every job of the data folder over HTTP. New versions are picked up without a restart.

    Loads no model and needs no GPU. On any address but loopback it requires API keys (batchinfer keys add), and on
    loopback once there is one. With --json it prints its address as it starts.
    """
    try:
        from batchinfer.serve.auth import Latch
        from batchinfer.serve.server import is_loopback, serve
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("batchinfer"):
            raise
        raise MissingExtra("The lookup service", "serve") from exc
    if require_keys and no_auth:
        raise UsageError("--require-keys and --no-auth are opposites: give one of them.")
    if access_log and as_json:
        raise UsageError("--access-log and --json both write to stdout: give one of them.")
    root = data_dir()
    require_folder(root)
    keys = [] if no_auth else _keys(root, must_be_readable=not is_loopback(host))
    if not (is_loopback(host) or no_auth or require_keys or keys):
        raise UsageError(
            f"{host} can be reached by others, and there are no API keys: make one with batchinfer keys add, "
            "or pass --no-auth if something else keeps strangers out."
        )
    serve(
        root, host, port,
        workers=workers or min(MOST_WORKERS, len(os.sched_getaffinity(0))),
        latch=Latch(always=require_keys or not is_loopback(host), never=no_auth),
        misses=not no_misses, access_log=access_log,
        tell=partial(_tell_started, as_json=as_json, keys=keys),
    )  # fmt: skip


def _keys(root: Path, *, must_be_readable: bool) -> list[Record] | None:
    """The keys that there are; on loopback None where the file cannot be read, which the service reports."""
    from batchinfer.serve.apikeys import KeyFile

    try:
        return KeyFile(root).read()
    except StoreError:
        if must_be_readable:
            raise
        return None


def _tell_started(started: Started, *, as_json: bool, keys: list[Record] | None) -> None:
    """Says where the service is, and who may ask it, and serves whether anybody reads that or not. keys: as `_keys` has them."""
    said = {
        "always": f"API keys are required{_nobody(keys)}.",
        "never": "No API key is required (--no-auth).",
        "once there is one": "No API key is required as long as there is none: batchinfer keys add NAME makes the first.",
    }
    workers = counted(started.workers, "worker")
    STDERR.write(f"Serving {started.data} on {started.url}, {workers}. {said[started.keys]} Stop with Ctrl-C.")
    if as_json:
        STDOUT.write(json.dumps(started.to_json(), default=str))


def _nobody(keys: list[Record] | None) -> str:
    """Why nobody may ask a service that requires keys; empty where somebody may."""
    if keys is None:
        return ", and their file cannot be read: nobody can ask until it can; batchinfer keys list says why"
    if any(key.is_valid for key in keys):
        return ""
    return ", and there is none: nobody can ask until batchinfer keys add makes one"


@click.group("keys", cls=Group, invoke_without_command=True)
@click.pass_context
def keys_(ctx: click.Context) -> None:
    """API keys of the lookup service. It picks up changes within a second, without a restart.

    As long as there never was a key, the service asks for none on loopback.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@keys_.command("add")
@click.argument("name")
@click.option(
    "--job", "jobs", multiple=True, metavar="JOB", help="Limit the key to this job; may be given several times."
)
@yes_option
@json_option
def add(name: str, jobs: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Make a key. NAME says who or what it is for. The key is shown once and not stored.

    With the first key a running service begins to refuse all who send none.
    """
    from batchinfer.serve.apikeys import KeyFile

    if not name.strip():
        raise UsageError("A key's NAME says who or what it is for: it cannot be empty.")
    root = data_dir()
    _check_jobs(root, jobs)
    require_folder(root)
    file = KeyFile(root)
    if not file.read():
        said = (
            "This is the first key: a service that runs on this data folder refuses everybody without a key from now on, "
            "until it is restarted with --no-auth."
        )
        ask(Terminal(), said, "pass --yes to make it.", yes=yes)
    made = file.add(name, list(jobs))

    def text() -> None:
        click.echo(made.key)
        warn(f"It is shown only now. Send it as: Authorization: Bearer {made.key[:6]}…")

    emit(made.to_json(), as_json, text)


def _check_jobs(root: Path, jobs: tuple[str, ...]) -> None:
    """Raises UsageError for what cannot be a job's name; a job that does not exist yet only gets a hint."""
    known: list[str] = []
    with contextlib.suppress(OSError):
        known = job_names(root)
    for job in jobs:
        check_job_name(job)
        if job not in known:
            warn(f"There is no job {job} in the data folder yet.")


@keys_.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the keys, without their secrets."""
    from batchinfer.serve.apikeys import KeyFile

    root = data_dir()
    require_folder(root)
    rows = [record.to_json() for record in KeyFile(root).read()]
    columns = ["id", "name", "jobs", "created_at", "revoked_at"]

    def text() -> None:
        if not rows:
            click.echo(f"There are no keys in {root}: batchinfer keys add NAME makes one.")
            return
        shown = [
            [", ".join(row["jobs"] or ["all"]) if name == "jobs" else row[name] for name in columns] for row in rows
        ]
        table("", columns, shown, free=["name", "jobs"])

    emit(rows, as_json, text)


@keys_.command("revoke")
@click.argument("named", metavar="NAME|ID")
@json_option
def revoke(named: str, as_json: bool) -> None:
    """Revoke a key, by its name or id, for good."""
    from batchinfer.serve.apikeys import KeyFile

    root = data_dir()
    require_folder(root)
    revoked = KeyFile(root).revoke(named)
    emit(revoked.to_json(), as_json, lambda: click.echo(f"Revoked the key {revoked.id} ({revoked.name})."))
    if not revoked.left:
        warn("No key is left: a running service now refuses everybody; restart it with --no-auth to open it.")
