"""Reads job.yaml: finds it, parses it, and reports every fault with its line."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import yaml
from pydantic import ValidationError

from batchinfer.core.files import fault_of_path, real_path, why_unread
from batchinfer.errors import BatchinferError, SpecError, UsageError, did_you_mean, shortened
from batchinfer.job import yaml_file
from batchinfer.job.checks import (
    alert_problems,
    audit_problems,
    cascade_problems,
    engine_problems,
    eval_problems,
    example_problems,
    finetune_problems,
    gate_problems,
    match_problems,
    miss_problems,
    prompt_problems,
    step_problems,
    student_problems,
    text_problems,
)
from batchinfer.job.date_pattern import DatePattern
from batchinfer.job.problems import described, line_of, locate
from batchinfer.job.spec import JobSpec

FILE = "job.yaml"
ROOTS_VARIABLE = "BATCHINFER_INPUT_ROOTS"
LARGE_MODEL = ("model", "cascade", "large")


class NoJobFile(UsageError):
    """There is no job file of that name."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job file that was read.

    spec: its content.
    path: the file, absolute.
    roots: folders outside its own that its paths may lead to.
    model_at: the place in the file of the model that is asked.
    list_date: whose list is taken, where the list's path has a date; None for the newest.
    """

    spec: JobSpec
    path: Path
    roots: tuple[Path, ...]
    model_at: tuple[str, ...] = ("model",)
    list_date: date | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def folder(self) -> Path:
        return self.path.parent

    def at_date(self, day: date) -> Job:
        """The same job with the list of a date. Raises UsageError where its path has none."""
        if self.spec.input.path is None or DatePattern.of(self.spec.input.path) is None:
            raise UsageError(
                f"The list of {self.name} is not chosen by a date",
                fix="put one into input.path of the job file, such as exports/{date:%Y-%m-%d}/*.parquet, or leave out the date.",
            )
        return replace(self, list_date=day)

    @property
    def large(self) -> Job | None:
        """The same job, asking the large model of its cascade alone; None without a cascade."""
        model = None if self.spec.model is None else self.spec.model.large
        if model is None:
            return None
        return replace(self, spec=self.spec.model_copy(update={"model": model}), model_at=LARGE_MODEL)

    def inside(self, field: str, text: str) -> Path:
        """A path named in the job file, made absolute. Raises SpecError if it leaves the folder and allowed roots."""
        path = Path(os.path.expandvars(text))
        if fault := fault_of_path(path):
            raise faulty(self, [(tuple(field.split(".")), f"{shortened(text)} {fault}")])
        full = Path(os.path.normpath(self.folder / path))
        self.check_inside(field, full, text)
        return full

    def check_inside(self, field: str, path: Path, text: str | None = None) -> None:
        """Raises SpecError for an absolute path that leaves the folder and allowed roots. text: as the file has it."""
        # What the path resolves to counts: a link must not lead out. Of a glob, its fixed part is resolved.
        if any(real_path(path).is_relative_to(real_path(root)) for root in (self.folder, *self.roots)):
            return
        said = f"{text or path} is outside the job's folder: put it there, or name its root in ${ROOTS_VARIABLE}"
        real = real_path(path)
        root = next((parent for parent in (real, *real.parents) if parent.is_dir()), real)
        said += "." if root.parent == root else f": export {ROOTS_VARIABLE}={shlex.quote(str(root))}."
        raise faulty(self, [(tuple(field.split(".")), said)])

    def field_asking(self, column: str) -> tuple[str, str] | None:
        """The field of the job file that makes the question of a column; None if none does. Raises SpecError."""
        from batchinfer.prompting.likelihood import scored_text, used_columns  # slow: brings jinja

        spec, path = self.spec, str(self.path)
        scored = scored_text(spec.output, path)
        if scored is not None and column in scored.columns:
            return "output", "text"
        asked = spec.prompt is not None and column in used_columns(spec.prompt, spec.output, path)
        return ("prompt", "template") if asked else None


def load(name: str, environment: Mapping[str, str]) -> Job:
    """The job of that name under ./jobs, or of that folder or file. Raises UsageError or SpecError."""
    path = find(name)
    roots = tuple(_absolute(Path(root)) for root in environment.get(ROOTS_VARIABLE, "").split(os.pathsep) if root)
    if path.stat().st_size > yaml_file.MOST_BYTES:
        raise UsageError(f"{path} is not a job file: it has more than {yaml_file.MOST_BYTES:,} bytes.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        fix = "name the job, its folder or its job.yaml; a list goes to --input."
        raise UsageError(f"{path} is not a job file: it is not UTF-8 text", fix=fix) from exc
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {why_unread(exc)}.") from exc
    return Job(parse(text, str(path)), path, roots)


def find(name: str) -> Path:
    """The absolute path of a job's file. Raises UsageError."""
    if not name:
        raise UsageError("expected a job's name or path, got ''.")
    if fault := fault_of_path(Path(name)):
        raise UsageError(f"The job {shortened(name)} {fault}")
    candidates = [Path("jobs") / name / FILE, Path(name) / FILE, Path(name)]
    for candidate in candidates:
        if candidate.is_file():
            return _absolute(candidate)
    known = sorted(path.parent.name for path in Path("jobs").glob(f"*/{FILE}"))
    there = f"there are {', '.join(known)}." if known else "make one with batchinfer init."
    hint = did_you_mean(name, known) or there
    raise NoJobFile(f"There is no job {name}: neither jobs/{name}/{FILE} nor {Path(name) / FILE} exists; {hint}")


def _absolute(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))  # without .., so that paths can be compared


def parse(text: str, name: str) -> JobSpec:
    """The job that a YAML text describes. `name` is the file's, for messages."""
    try:
        tree, content = yaml_file.read(text)
    except yaml_file.YamlFault as exc:
        raise SpecError(name, [str(exc)], [exc.line]) from exc
    if not isinstance(content, dict):
        raise SpecError(name, ["a job file is a mapping that begins with name: …"], [1])
    problems = (
        prompt_problems(content.get("prompt"), tree)
        | example_problems(content, tree)
        | text_problems(content, tree)
        | miss_problems(content, tree)
        | step_problems(content, tree)
    )
    try:
        spec = JobSpec.model_validate(content)
        problems |= (
            match_problems(spec, tree)
            | eval_problems(spec, tree)
            | audit_problems(spec, tree)
            | gate_problems(spec, tree)
            | student_problems(spec, tree)
            | finetune_problems(spec, tree)
            | cascade_problems(spec, tree)
            | engine_problems(spec, tree)
            | alert_problems(spec, tree)
        )
    except ValidationError as exc:
        problems |= described(exc.errors(), tree)
    if problems:
        found = sorted(problems)
        raise SpecError(name, [text for _, text in found], [line for line, _ in found])
    return spec


def faulty(job: Job, faults: Sequence[tuple[Sequence[str | int], str]]) -> SpecError:
    """The error for settings of a job file that was read, each a place in it and what is wrong there."""
    tree = _tree(job)
    located = sorted(
        ((locate(tuple(at), tree)[1], _dotted(at), fault) for at, fault in faults), key=lambda found: found[0]
    )
    return SpecError(
        str(job.path), [f"{place}: {fault}" for _, place, fault in located], [line for line, *_ in located]
    )


def _dotted(at: Sequence[str | int]) -> str:
    """A place in the file, as sentences have it."""
    return ".".join(map(str, at))


def _is_written(job: Job, section: str) -> bool:
    """Whether a section is as the file has it: an evaluation asks with others, too."""
    with contextlib.suppress(OSError, UnicodeDecodeError, BatchinferError):
        written = replace(job, spec=parse(job.path.read_text(encoding="utf-8"), str(job.path)))
        in_file = written.large if job.model_at == LARGE_MODEL else written
        return in_file is not None and bool(getattr(in_file.spec, section) == getattr(job.spec, section))
    return False


def _tree(job: Job) -> yaml.Node | None:
    with contextlib.suppress(OSError, UnicodeDecodeError, yaml_file.YamlFault):  # it was whole when it was read
        return yaml_file.read(job.path.read_text(encoding="utf-8"))[0]
    return None


@contextlib.contextmanager
def placing(job: Job) -> Iterator[None]:
    """Tells errors that a field of the job file is to blame for with the file and the line of that field."""
    try:
        yield
    except SpecError as exc:
        if exc.is_placed(str(job.path)):
            raise
        tree, said = _tree(job), [problem.message for problem in exc.listed]
        raise SpecError(str(job.path), said, [line_of(problem, tree) for problem in said]) from exc
    except BatchinferError as exc:
        if exc.field is None or not _is_written(job, str(exc.field[0])):
            exc.field = None  # of a job that is another than its file says: that file is not to blame, whoever asked
            raise
        line = locate(tuple(exc.field), _tree(job))[1]
        sentence = re.sub("^The(?:re)? ", lambda begun: begun[0].lower(), str(exc))
        raise exc.placed(str(job.path), f"{_dotted(exc.field)}: {sentence}", line) from exc
