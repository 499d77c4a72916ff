"""finetune: an adapter that makes the model better at the job's task."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from batchinfer.cli.opening import open_job
from batchinfer.cli.options import input_option, job_argument, json_option
from batchinfer.cli.tables import percent, table
from batchinfer.cli.terminal import LINE_SECONDS, emit, tell
from batchinfer.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from batchinfer.training.finetune import FinetuneReport
    from batchinfer.training.merge import MergeReport
    from batchinfer.training.records import Scored, Step
    from batchinfer.training.worth import Worth


@click.command("finetune")
@job_argument
@input_option
@click.option(
    "--merge", is_flag=True, help="Train nothing: write the model with its adapter (model.adapter) merged in."
)
@json_option
def finetune_(job: str, input_path: Path | None, merge: bool, as_json: bool) -> None:
    """Train a LoRA adapter on right answers, and say what it is worth on rows that it did not learn.

    The job file needs a section finetune. Golden rows are never learned; where there are some, the adapter is held against
    them. It is kept only if vLLM computes with it what it was trained to give. Ctrl-C keeps a checkpoint: the same command
    goes on from there.
    """
    for package in ("peft", "scipy"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "finetune")
    if merge and input_path is not None:
        raise UsageError("--input is of a training, and --merge trains nothing: leave one of the two out.")
    opened, data = open_job(job)
    if merge:
        from batchinfer.training.merge import merge_adapter

        with TrainingBar() as bar:
            merged = merge_adapter(opened, data, bar.info)
        emit(merged.to_json(), as_json, lambda: _print_merged(merged))
        return
    from batchinfer.pipeline.stop import stopping
    from batchinfer.planning.prepare import Options
    from batchinfer.training.finetune import finetune

    with TrainingBar() as bar, stopping(None, bar.info) as stop:
        report = finetune(opened, data, Options(input=input_path), bar, stop)
    emit(report.to_json(), as_json, lambda: _print_adapter(report))


class TrainingBar:
    """The `TrainingConsole` of the command, on stderr: a live bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._said = 0.0

    def info(self, text: str) -> None:
        self._console.print(text, style="dim", highlight=False, markup=False, soft_wrap=not self._console.is_terminal)

    def step(self, step: Step) -> None:
        self._show(step.number, step.count, step_line(step))

    def scored(self, scored: Scored) -> None:
        self._show(scored.done, scored.count, f"scored {scored.done:,} of {scored.count:,}")

    def _show(self, done: int, count: int, line: str) -> None:
        if self._console.is_terminal:
            self._draw(done, count, line)
        elif done == count or time.monotonic() - self._said > LINE_SECONDS:
            self._said = time.monotonic()
            self.info(line)

    def _draw(self, done: int, count: int, line: str) -> None:
        if self._bar is None:
            from rich.progress import BarColumn, Progress, TextColumn

            self._bar = Progress(BarColumn(), TextColumn("{task.description}"), console=self._console, transient=True)
            self._task = self._bar.add_task("", total=count)
            self._bar.start()
        assert self._task is not None
        self._bar.update(self._task, completed=done, description=line)
        if done == count:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def step_line(step: Step) -> str:
    """How far a training is, in one line."""
    from batchinfer.cli.progress import duration

    line = f"step {step.number:,} of {step.count:,}, loss {step.loss:.3f}"
    left = step.count - step.number
    return f"{line}, about {duration(left * step.seconds / step.number)} to go" if left else line


def _print_adapter(report: FinetuneReport) -> None:
    table(
        f"{report.job}: {report.rows:,} rows learned in {report.steps:,} steps and {report.seconds:.0f} s; "
        f"held against {report.before.rows:,} {report.held_from}",
        ["model", "right", "area under the ROC curve", "loss"],
        [[report.base, *_worth_cells(report.before)], ["with the adapter", *_worth_cells(report.after)]],
        right=["right", "area under the ROC curve", "loss"],
    )
    for reason, count in report.left_out.items():
        tell(f"Labels left out: {count:,} {reason}.")
    tell(
        f"vLLM's log-probabilities are within {report.parity.largest:.5f} of the trained ones, on {report.parity.rows:,} rows."
    )
    if report.worse:
        tell(
            f"On these rows it is no better than the model alone in: {', '.join(report.worse)}. More labels, or a lower "
            "learning_rate, may help."
        )
    tell(
        f"To use it, write adapter: {report.adapter} under model in the job file. All rows will be asked again with it."
    )


def _print_merged(report: MergeReport) -> None:
    tell(f"To use it, write id: ./{report.merged} under model in the job file, and no adapter.")


def _worth_cells(worth: Worth) -> list[str]:
    return [percent(worth.accuracy), "" if worth.area is None else f"{worth.area:.3f}", f"{worth.loss:.3f}"]
