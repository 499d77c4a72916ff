"""init, try: the commands that one begins with."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchinfer.cli.notices import model_note
from batchinfer.cli.opening import open_job
from batchinfer.cli.options import input_option, job_argument, json_option, pairs
from batchinfer.cli.tables import table
from batchinfer.cli.terminal import emit, tell, tell_dimly
from batchinfer.cli.values import Integer, PathText
from batchinfer.core.columns import query_text
from batchinfer.errors import UsageError, counted
from batchinfer.job.reader import ROOTS_VARIABLE

if TYPE_CHECKING:
    from batchinfer.pipeline.scaffold import NewJob
    from batchinfer.pipeline.trial import Trial


@click.command("init")
@click.argument("name")
@click.option("--input", "input_path", type=PathText(), metavar="FILE", help="Make the job for a copy of this list.")
@click.option(
    "--link",
    type=PathText(),
    metavar="PATH",
    help="Make it for a list that stays where it is: a file, folder or glob, which may have a date, as {date:%Y-%m-%d}.",
)
@click.option("--key", multiple=True, metavar="COLUMN", help="The key of the list; may be repeated.")
@json_option
def init_(name: str, input_path: str | None, link: str | None, key: tuple[str, ...], as_json: bool) -> None:
    """Scaffold jobs/NAME: a job that runs as it is. From a list it proposes key and question.

    A list is Parquet, CSV or JSON lines. On a terminal it asks for the key where more than one would do.
    """
    from batchinfer.pipeline.list_to_use import ListToUse
    from batchinfer.pipeline.scaffold import init

    if input_path is not None and link is not None:
        raise UsageError("--input copies a list, and --link leaves it where it is: give one of the two.")
    path = input_path if link is None else link
    if key and path is None:
        raise UsageError("--key names a column of a list: pass the list with --input or --link.")
    source = None if path is None else ListToUse.of(path, stays=link is not None)
    ask = None if as_json or not sys.stdin.isatty() else _ask_key
    made = init(name, source, Path("jobs"), key, ask)
    emit(made.to_json(), as_json, lambda: _print_made(made, path))


def _ask_key(columns: Sequence[str], proposed: Sequence[str]) -> list[str]:
    """Which columns are the key. Several are written with commas between them."""
    click.echo(f"Which column will answers be looked up by? There are {', '.join(columns)}.", err=True)
    said = click.prompt("The key (several with commas)", default=", ".join(proposed) or None, err=True)
    return [said] if said in columns else [word.strip() for word in said.split(",")]


def _print_made(made: NewJob, list_path: str | None) -> None:
    job_file = f"{made.folder}/job.yaml"
    if list_path is None:
        tell(f"Made {job_file} and a small queries.parquet.")
    elif made.path.startswith("/"):
        tell(f"Made {job_file}, for the list {made.path}, which stays there.")
    else:
        tell(f"Made {job_file}, with a copy of {list_path}.")
    key = ", ".join(made.key)
    if not made.sure:
        tell(
            f"The key is {key}. If answers will be looked up by another column, remove {made.folder} and pass --key COLUMN."
        )
    if made.left_out:
        tell(
            f"Not in the question: {', '.join(made.left_out)} (no texts, or with nulls, or they look like labels, ids or ratings)."
        )
    if made.root is not None:
        tell(
            f"A job's list may lie outside its folder where {ROOTS_VARIABLE} allows it. For this shell, and wherever the job "
            f"is to run: export {ROOTS_VARIABLE}={shlex.quote(_roots_with(made.root))}"
        )
    tell(f"Next: put your question into {made.folder}/job.yaml, then: batchinfer try {made.job}")


def _roots_with(root: str) -> str:
    """The folders that are allowed, and a further one."""
    return os.pathsep.join(filter(None, (os.environ.get(ROOTS_VARIABLE), root)))


@click.command("try")
@job_argument
@click.argument("pair", nargs=-1, metavar="[COLUMN=VALUE...]")
@click.option("--rows", "count", type=Integer(min=1), metavar="N", help="Try the first N rows of the list.")
@click.option(
    "--shots", type=Integer(min=0), metavar="N", help="Put the first N of the job's examples into the prompt."
)
@input_option
@json_option
def try_(
    job: str, pair: tuple[str, ...], count: int | None, shots: int | None, input_path: Path | None, as_json: bool
) -> None:
    """Render a prompt, show it, ask the model, store nothing.

    Without COLUMN=VALUE it takes the list's first row; with the columns of the key, the row with that key; with all columns
    of the template, the values given, whether or not the list has them. With --rows, --json prints a list.
    """
    from batchinfer.pipeline.trial import try_rows
    from batchinfer.pipeline.wanted import Wanted, nameable_columns

    if pair and count is not None:
        raise UsageError("--rows takes the first rows of the list, and COLUMN=VALUE names one: give one of the two.")
    opened, data = open_job(job)
    wanted = Wanted(pairs(pair, nameable_columns(opened)), count or 1, input_path)

    def show(text: str, tokens: int) -> None:
        if not as_json and count is None:
            _print_prompt(text, tokens)

    model_note(opened, as_json=as_json)
    trials = try_rows(opened, data, wanted, shots=shots, info=tell_dimly, show=show)
    if count is None:
        emit(trials[0].to_json(), as_json, lambda: _print_trial(trials[0]))
    else:
        emit([trial.to_json() for trial in trials], as_json, lambda: _print_trials(trials))


def _print_prompt(text: str, tokens: int) -> None:
    click.secho(f"The prompt, {counted(tokens, 'token')}:", bold=True)
    click.echo(text)


def _print_trials(trials: Sequence[Trial]) -> None:
    for trial in trials:
        click.secho(f"\n{query_text(trial.query)}", fg="cyan", bold=True)
        _print_prompt(trial.prompt, trial.prompt_tokens)
        _print_trial(trial)


def _print_trial(trial: Trial) -> None:
    from batchinfer.core.records import Failure

    result = trial.result
    if trial.generation is not None and trial.generation.text:
        click.secho(f"The answer, {counted(trial.generation.output_tokens, 'token')}:", bold=True)
        click.echo(trial.generation.text)
    if isinstance(result, Failure):
        click.secho(f"No prediction ({result.reason}): ", bold=True, nl=False)
        click.echo(result.detail)
        return
    click.secho("The prediction: ", bold=True, nl=False)
    click.echo(json.dumps(result.value, ensure_ascii=False))
    if result.scores is not None:
        rows = [[choice, f"{score:.4f}"] for choice, score in sorted(result.scores.items(), key=lambda item: -item[1])]
        table("", ["choice", "score"], rows, right=["score"], free=["choice"])
    if result.choice_mass is not None:
        click.echo(f"All choices together have a probability of {result.choice_mass:.4f}.")
