"""The command `batchinfer`. Each command's file is imported only when it is called, so that --help is quick."""

from __future__ import annotations

import errno
import importlib
import io
import json
import sys
from typing import Any

import click

from batchinfer.cli.usage import Group, usage_sentence
from batchinfer.cli.values import PathText
from batchinfer.core.garbage import collecting_seldom
from batchinfer.core.spared import spare_pandas
from batchinfer.core.version import __version__
from batchinfer.errors import (
    BatchinferError,
    ExitCode,
    Report,
    StoreError,
    UsageError,
    error_json,
    shortened,
)

COMMANDS = {
    "init": ("begin", "Scaffold a job that runs."),
    "try": ("begin", "Render one prompt, ask the model, store nothing."),
    "doctor": ("maintenance", "Check this machine: what it can do, what is missing."),
    "plan": ("run", "The dry run: what a run would generate."),
    "run": ("run", "Plan, generate, store, gate, publish."),
    "tune": ("tune", "Find the engine options that answer fastest."),
    "eval": ("evaluate", "Compare prompts on known answers; choose one."),
    "publish": ("run", "Build a version from the cache and make it current."),
    "review": ("review", "Write new and changed predictions to a file for review."),
    "precision": ("precision", "Say how many served predictions are right, by a sample."),
    "calibrate": ("calibrate", "Learn scores that are the chance of being right."),
    "distill": ("distill", "Learn the model's scores, for live queries beyond the list."),
    "finetune": ("finetune", "Train an adapter that makes the model better at this task."),
    "import": ("review", "Import predictions or verdicts; they win over the model's."),
    "export": ("run", "Predictions with raw text and scores, as a file."),
    "failures": ("history", "Rows without a prediction, and why."),
    "runs": ("history", "The history of runs."),
    "status": ("status", "Whether all is well with each job."),
    "schedule": ("schedule", "Run jobs at their times, or let another scheduler."),
    "audit": ("audit", "How well each group of rows is served."),
    "versions": ("versions", "The published versions."),
    "pin": ("versions", "Serve one version until it is unpinned."),
    "unpin": ("versions", "Serve the current version again."),
    "rollback": ("versions", "Pin the version before the one that is served."),
    "jobs": ("maintenance", "The jobs of the data folder; jobs remove removes one."),
    "lookup": ("lookup", "One prediction, from the version that is served."),
    "match": ("lookup", "Concepts that a text mentions, with places."),
    "serve": ("serve", "The lookup service: HTTP for every job of the data folder."),
    "keys": ("serve", "API keys of the lookup service."),
    "diff": ("versions", "Compare two versions: added, removed and changed entries."),
    "copy": ("versions", "Copy the served version to another data folder."),
    "repair": ("maintenance", "Make a new cache of what is left of a damaged one."),
    "prune": ("maintenance", "Remove answers from the cache that nothing uses any more."),
    "forget": ("maintenance", "Erase one entry, everywhere."),
}


class LazyGroup(Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"batchinfer.cli.{COMMANDS[name][0]}")
        command: click.Command = getattr(module, f"{name}_")
        _accept_home(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _choose_home(ctx: click.Context, _option: click.Parameter, home: str | None) -> None:
    """Notes the data folder where all commands look for it."""
    if home is not None:
        ctx.find_root().obj = home


def _accept_home(command: click.Command) -> None:
    """Adds --home to a command and to those below it, as people also write it there."""
    if not any(option.name == "home" for option in command.params):
        command.params.append(
            click.Option(
                ["--home"],
                type=PathText(),
                metavar="FOLDER",
                help="The data folder.",
                callback=_choose_home,
                expose_value=False,
            )
        )
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        _accept_home(inner)


@click.command(cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--home",
    envvar="BATCHINFER_HOME",
    type=PathText(),
    metavar="FOLDER",
    expose_value=False,
    callback=_choose_home,
    help="The data folder. Default: the user's data folder. May also stand after the command.",
)
@click.version_option(__version__, prog_name="batchinfer")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Ask a large model every question once, ahead of time; check the answers; serve them from a file.

    JOB is a job's name under ./jobs, or a path to its folder or job.yaml.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """Entry point of the process."""
    spare_pandas()
    with collecting_seldom():
        dispatch()


def dispatch() -> None:
    """Runs the command; errors become one sentence on stderr, with --json a value on stdout, and the contract's exit code."""
    for stream in (sys.stdout, sys.stderr):  # names of files need not be UTF-8; in JSON such escapes are right, too
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(prog_name="batchinfer", standalone_mode=False)
    except BatchinferError as exc:
        code = _fail(str(exc), exc.to_json(), exc.report)
    except click.ClickException as exc:
        context = getattr(exc, "ctx", None)
        hint = f"Try: {context.command_path} --help" if context else "See batchinfer --help."
        said = usage_sentence(exc)
        code = _fail(f"{said} {hint}", error_json("usage_error", said, hint, ExitCode.USAGE))
    except (click.Abort, KeyboardInterrupt):
        said, hint = "Stopped by Ctrl-C.", "Run the same command again."
        code = _fail(f"{said} {hint}", error_json("interrupted", said, hint, ExitCode.INTERRUPTED))
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        sys.stderr.close()
        code = ExitCode.FAILED
    except OSError as exc:  # a folder or file that may not be read, wherever it was met first
        refused = _refused(exc)
        code = _fail(str(refused), refused.to_json())
    except Exception as exc:  # noqa: BLE001 - people get a sentence, whatever happened
        from batchinfer.cli.unforeseen import unforeseen

        told = unforeseen(exc)
        error = error_json("unforeseen", told.message, told.fix, ExitCode.FAILED)
        code = _fail(f"{told.message} {told.fix}", error)
    sys.exit(code if isinstance(code, int) else ExitCode.DONE)


def _refused(exc: OSError) -> BatchinferError:
    """What the system would not do, and where."""
    if exc.errno == errno.ENAMETOOLONG:
        return UsageError(f"{shortened(str(exc.filename))} is too long for a path: a name has at most 255 bytes.")
    if exc.errno in (errno.ENOSPC, errno.EDQUOT) and exc.filename is None:
        return StoreError(f"A file could not be written: {exc.strerror}. Free space, then run again.")
    return StoreError(f"{exc.filename}: {exc.strerror}" if exc.filename is not None else str(exc))


def _fail(sentence: str, error: dict[str, Any], report: Report | None = None) -> int:
    """Tells an error: on stderr, and with --json also as the one value on stdout, beside what was done before it."""
    click.echo(f"batchinfer: {sentence}", err=True)
    if _as_json(sys.argv[1:]):
        value = (report.to_json() if report else {}) | error
        try:
            click.echo(json.dumps(value, ensure_ascii=False, default=str))
        except BrokenPipeError:
            sys.stderr.close()
    return int(error["error"]["exit_code"])


def _as_json(arguments: list[str]) -> bool:
    """Whether the command line asks for JSON; also one that cannot be parsed."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options
