"""The command `batchinfer`. Each command's file is imported only when it is called, so that --help is quick."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from batchinfer.core.version import __version__
from batchinfer.errors import BatchinferError, did_you_mean

COMMANDS = {
    "init": ("jobs", "Scaffold a job that runs."),
    "try": ("jobs", "Render one prompt, ask the model, store nothing."),
    "doctor": ("maintenance", "Check this machine: what it can do, what is missing."),
    "plan": ("runs", "The dry run: what a run would generate."),
    "run": ("runs", "Plan, generate, store, gate, publish."),
    "publish": ("runs", "Build a version from the cache and make it current."),
    "review": ("review", "Write new and changed predictions to a file for review."),
    "import": ("review", "Import predictions or verdicts; they win over the model's."),
    "export": ("runs", "Predictions with raw text and scores, as a file."),
    "failures": ("runs", "Rows without a prediction, and why."),
    "runs": ("runs", "The history of runs."),
    "versions": ("versions", "The published versions."),
    "pin": ("versions", "Serve one version until it is unpinned."),
    "unpin": ("versions", "Serve the current version again."),
    "rollback": ("versions", "Pin the version before the one that is served."),
    "lookup": ("lookup", "One prediction, from the version that is served."),
    "match": ("lookup", "Concepts that a text mentions, with places."),
    "serve": ("serve", "The lookup service: HTTP for every job of the data folder."),
    "keys": ("serve", "API keys of the lookup service."),
    "diff": ("versions", "Compare two versions: added, removed and changed entries."),
    "copy": ("versions", "Copy the served version to another data folder."),
    "forget": ("maintenance", "Remove one entry from everything."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"batchinfer.cli.{COMMANDS[name][0]}")
        command: click.Command = getattr(module, f"{name}_")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], COMMANDS)
            raise click.UsageError(f"There is no command {args[0]}" + (f"; {hint}" if hint else "."), ctx)
        return super().resolve_command(ctx, args)


@click.command(cls=LazyGroup)
@click.option(
    "--home", envvar="BATCHINFER_HOME", metavar="FOLDER", help="The data folder. Default: the user's data folder."
)
@click.version_option(__version__, prog_name="batchinfer")
@click.pass_context
def cli(ctx: click.Context, home: str | None) -> None:
    """Ask a large model every question once, ahead of time; check the answers; serve them from a file.

    JOB is a job's name under ./jobs, or a path to its folder or job.yaml.
    """
    ctx.obj = home


def main() -> None:
    """Entry point: errors become one sentence on stderr and the contract's exit code."""
    try:
        code = cli.main(standalone_mode=False)
    except BatchinferError as exc:
        click.echo(f"batchinfer: {exc}", err=True)
        code = exc.exit_code
    except click.ClickException as exc:
        context = getattr(exc, "ctx", None)
        hint = f" Try: {context.command_path} --help" if context else ""
        click.echo(f"batchinfer: {exc.format_message()}{hint}", err=True)
        code = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("batchinfer: stopped.", err=True)
        code = 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        sys.stderr.close()
        code = 1
    except OSError as exc:  # a folder or file that may not be read, wherever it was met first
        said = f"{exc.filename}: {exc.strerror}" if exc.filename is not None else str(exc)
        click.echo(f"batchinfer: {said}", err=True)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
