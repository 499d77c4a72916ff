"""serve, keys: the lookup service and who may ask it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import click

from batchinfer.cli.common import data_dir, emit, json_option, table, warn
from batchinfer.core.home import check_job_name, job_names, require_folder
from batchinfer.errors import MissingExtra, UsageError

MOST_WORKERS = 4


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="The port to listen on.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Processes.  [default: one a core, at most {MOST_WORKERS}]",
)
@click.option("--no-auth", is_flag=True, help="Require no API keys, whoever can reach the address.")
@click.option("--no-misses", is_flag=True, help="Do not record what was asked for and not found.")
@click.option("--access-log", is_flag=True, help="Write a line of JSON for each request to stdout.")
def serve_(host: str, port: int, workers: int | None, no_auth: bool, no_misses: bool, access_log: bool) -> None:
    """Serve every job of the data folder over HTTP. New versions are picked up without a restart.

    Loads no model and needs no GPU. On any address but loopback it requires API keys: batchinfer keys add.
    """
    from batchinfer.serve.apikeys import KeyFile

    try:
        from batchinfer.serve.server import is_loopback, serve
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("batchinfer"):
            raise
        raise MissingExtra("The lookup service", "serve") from exc
    root = data_dir()
    require_folder(root)
    if not (is_loopback(host) or no_auth or KeyFile(root).read()):
        raise UsageError(
            f"{host} can be reached by others, and there are no API keys: make one with batchinfer keys add, "
            "or pass --no-auth if something else keeps strangers out."
        )
    serve(
        root, host, port,
        workers=workers or min(MOST_WORKERS, len(os.sched_getaffinity(0))),
        no_auth=no_auth, misses=not no_misses, access_log=access_log,
        info=warn,
    )  # fmt: skip


@click.group("keys", invoke_without_command=True)
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
@json_option
def add(name: str, jobs: tuple[str, ...], as_json: bool) -> None:
    """Make a key. NAME says whom or what it is for. The key is shown once and not stored."""
    from batchinfer.serve.apikeys import KeyFile

    if not name.strip():
        raise UsageError("A key's NAME says whom or what it is for: it cannot be empty.")
    root = data_dir()
    _check_jobs(root, jobs)
    root.mkdir(parents=True, exist_ok=True)
    made = KeyFile(root).add(name, list(jobs))

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
        table("", columns, shown)

    emit(rows, as_json, text)


@keys_.command("revoke")
@click.argument("key_id", metavar="ID")
@json_option
def revoke(key_id: str, as_json: bool) -> None:
    """Revoke a key, for good."""
    from batchinfer.serve.apikeys import KeyFile

    revoked = KeyFile(data_dir()).revoke(key_id)
    emit(revoked.to_json(), as_json, lambda: click.echo(f"Revoked the key {revoked.id} ({revoked.name})."))
