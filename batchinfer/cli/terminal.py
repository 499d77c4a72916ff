"""What a command prints, for machines and for people, and the person at the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import click

from batchinfer.core.output import OutputFile
from batchinfer.core.records import Info

LINE_SECONDS = 10.0  # between two lines of how it goes, where no terminal shows a bar


def emit(value: Any, as_json: bool, text: Callable[[], None]) -> None:
    """Prints a result, for a machine or for a person."""
    if as_json:
        click.echo(json.dumps(value, ensure_ascii=False, default=str))
    else:
        text()


def tell(text: str) -> None:
    """Prints a sentence, broken at words on a terminal."""
    from rich.console import Console

    console = Console()
    console.print(text, highlight=False, markup=False, soft_wrap=not console.is_terminal)


def warn(text: str) -> None:
    """Prints a sentence to stderr, beside what the command prints."""
    click.echo(text, err=True)


def tell_dimly(text: str) -> None:
    """Tells on stderr, in a low voice, how it goes."""
    click.secho(text, dim=True, err=True)


def teller(output: OutputFile | None) -> Info:
    """What tells people of a file: not on standard output, if that is the file."""
    return warn if output is not None and output.path is None else tell


class Terminal:
    """The `Person` at a terminal, if there is one."""

    def info(self, text: str) -> None:
        warn(text)

    def confirm(self, text: str, *, typed: str | None = None) -> bool | None:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return None
        try:
            if typed is None:
                return click.confirm(text, default=False, err=True)
            question = f"{text} Type {typed} to continue, or nothing to stop"
            return bool(click.prompt(question, default="", show_default=False, err=True).strip() == typed)
        except BaseException:
            click.echo(err=True)  # Ctrl-C left the question's line open
            raise
