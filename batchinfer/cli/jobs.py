"""init, try: the commands that one begins with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchinfer.cli.common import emit, job_argument, json_option, open_job, pairs, table

if TYPE_CHECKING:
    from batchinfer.pipeline.trial import Trial


@click.command("init")
@click.argument("name")
@click.option(
    "--input", "input_path", type=click.Path(dir_okay=False), metavar="FILE.parquet", help="Make the job for this list."
)
@json_option
def init_(name: str, input_path: str | None, as_json: bool) -> None:
    """Scaffold jobs/NAME: a job that runs as it is. From a list it proposes key and template."""
    from batchinfer.pipeline.scaffold import init

    made = init(name, None if input_path is None else Path(input_path), Path("jobs"))

    def text() -> None:
        click.echo(
            f"Made {made.folder}/job.yaml"
            + (f", with a copy of {input_path}." if input_path else " and a small queries.parquet.")
        )
        click.echo(f"Next: read and edit {made.folder}/job.yaml, then batchinfer plan {name}, batchinfer run {name}.")

    emit(made.to_json(), as_json, text)


@click.command("try")
@job_argument
@click.argument("pair", nargs=-1, required=True, metavar="COLUMN=VALUE...")
@click.option(
    "--shots", type=click.IntRange(min=0), metavar="N", help="Put the first N of the job's examples into the prompt."
)
@json_option
def try_(job: str, pair: tuple[str, ...], shots: int | None, as_json: bool) -> None:
    """Render one prompt, show it, ask the model, store nothing."""
    from batchinfer.pipeline.trial import try_prompt

    opened, data = open_job(job)

    def show(text: str, tokens: int) -> None:
        if not as_json:
            click.secho(f"The prompt, {tokens} tokens:", bold=True)
            click.echo(text)

    trial = try_prompt(
        opened, data, pairs(pair), shots=shots, info=lambda text: click.secho(text, dim=True, err=True), show=show
    )
    emit(trial.to_json(), as_json, lambda: _print_trial(trial))


def _print_trial(trial: Trial) -> None:
    from batchinfer.core.records import Failure

    result = trial.result
    if trial.generation is not None and trial.generation.text:
        click.secho(f"The answer, {trial.generation.output_tokens} tokens:", bold=True)
        click.echo(trial.generation.text)
    if isinstance(result, Failure):
        click.secho(f"No prediction ({result.reason}): ", bold=True, nl=False)
        click.echo(result.detail)
        return
    click.secho("The prediction: ", bold=True, nl=False)
    click.echo(json.dumps(result.value, ensure_ascii=False))
    if result.scores is not None:
        rows = [[choice, f"{score:.4f}"] for choice, score in sorted(result.scores.items(), key=lambda item: -item[1])]
        table("", ["choice", "score"], rows, right=["score"])
        click.echo(f"All choices together have a probability of {result.choice_mass:.4f}.")
