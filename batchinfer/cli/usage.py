"""Calls that cannot be understood, told as all errors are: what is wrong, what to do. click finds them, and has words of its own."""

from __future__ import annotations

import re
from typing import Any

import click

from batchinfer.errors import did_you_mean

NO_VALUE = "does not take a value"  # of click, which says no more of it
EXTRA = re.compile(r"unexpected extra arguments? \((.*)\)")
LIST_ENDINGS = (".parquet", ".csv", ".jsonl", ".xlsx")


class Group(click.Group):
    """A group that says which of its commands was meant."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            path = " ".join([*ctx.command_path.split()[1:], args[0]])
            raise click.UsageError(f"There is no command {path}{_hint(args[0], known)}", ctx)
        return super().resolve_command(ctx, args)


def usage_sentence(exc: click.ClickException) -> str:
    """What is wrong with a call, as a sentence."""
    said = _said(exc) or exc.format_message()
    return said if said.endswith((".", "?", "!")) else f"{said}."


def _said(exc: click.ClickException) -> str | None:
    """The same in our words; None for what has ours already."""
    context = getattr(exc, "ctx", None)
    params = [] if context is None else context.command.get_params(context)
    options = {name: param for param in params for name in (*param.opts, *param.secondary_opts) if name.startswith("-")}
    match exc:
        case click.NoSuchOption():
            return f"{_command(context)} has no option {exc.option_name}{_hint(exc.option_name, options)}"
        case click.BadOptionUsage():
            return f"{exc.option_name} {'takes no' if NO_VALUE in exc.message else 'needs a'} value."
        case click.MissingParameter():
            return f"{'An argument' if exc.param is None else _named(exc.param)} is missing."
        case click.BadParameter():
            return f"{_short(exc.param)}: {exc.message}" if exc.param is not None else exc.message
        case click.UsageError() if context is not None and (extra := EXTRA.search(exc.message)):
            list_meant = "--input" in options and extra[1].endswith(LIST_ENDINGS)
            hint = f"; did you mean --input {extra[1]}?" if list_meant else "."
            return f"{_command(context)} does not take {extra[1]}{hint}"
    return None


def _command(context: click.Context | None) -> str:
    """The command that was called."""
    path = "" if context is None else context.command_path
    return path.partition(" ")[2] or "batchinfer"


def _hint(word: str, known: Any) -> str:
    hint = did_you_mean(word, known)
    return f"; {hint}" if hint else "."


def _short(param: click.Parameter) -> str:
    """An option as it is typed, an argument as the help names it."""
    if isinstance(param, click.Option):
        return max(param.opts, key=len)
    return param.human_readable_name.strip("[].")


def _named(param: click.Parameter) -> str:
    """The same, an option with the name of its value."""
    return f"{_short(param)} {param.metavar}" if isinstance(param, click.Option) and param.metavar else _short(param)
