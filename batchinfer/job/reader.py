"""Reads job.yaml: finds it, parses it, and reports every fault with its line."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from batchinfer.errors import SpecError, UsageError, did_you_mean
from batchinfer.job.checks import match_problems, miss_problems, prompt_problems, step_problems
from batchinfer.job.problems import clearest, described, locate
from batchinfer.job.spec import JobSpec

FILE = "job.yaml"
ROOTS_VARIABLE = "BATCHINFER_INPUT_ROOTS"


class NoJobFile(UsageError):
    """There is no job file of that name."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job file that was read.

    spec: its content.
    path: the file, absolute.
    roots: folders outside its own that its paths may lead to.
    """

    spec: JobSpec
    path: Path
    roots: tuple[Path, ...]

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def folder(self) -> Path:
        return self.path.parent

    def inside(self, field: str, text: str) -> Path:
        """A path named in the job file, made absolute. Raises SpecError if it leaves the folder and allowed roots."""
        path = Path(os.path.expandvars(text))
        full = Path(os.path.normpath(self.folder / path))
        self.check_inside(field, full, text)
        return full

    def check_inside(self, field: str, path: Path, text: str | None = None) -> None:
        """Raises SpecError for an absolute path that leaves the folder and allowed roots. text: as the file has it."""
        # What the path resolves to counts: a link must not lead out. Of a glob, its fixed part is resolved.
        if any(path.resolve().is_relative_to(root.resolve()) for root in (self.folder, *self.roots)):
            return
        raise SpecError(
            str(self.path),
            [
                f"{field}: {text or path} is outside the job's folder: put it there, or name its root in ${ROOTS_VARIABLE}."
            ],
        )


def load(name: str, environment: Mapping[str, str]) -> Job:
    """The job of that name under ./jobs, or of that folder or file. Raises UsageError or SpecError."""
    path = find(name)
    roots = tuple(_absolute(Path(root)) for root in environment.get(ROOTS_VARIABLE, "").split(os.pathsep) if root)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"{path} cannot be read: {exc}.") from exc
    return Job(parse(text, str(path)), path, roots)


def find(name: str) -> Path:
    """The absolute path of a job's file."""
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
        tree = yaml.compose(text, Loader=_JobFileLoader)
        content = yaml.load(text, Loader=_JobFileLoader)  # noqa: S506 - _JobFileLoader is a SafeLoader
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise SpecError(name, [f"line {line}: not valid YAML: {exc.problem}"]) from exc
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        fault = f"the character U+{exc.character:04X} is not allowed"
        raise SpecError(name, [f"line {line}: not valid YAML: {fault}"]) from exc
    except (yaml.YAMLError, ValueError) as exc:  # ValueError: a tag, such as !!int, on what it is not
        raise SpecError(name, [f"not valid YAML: {exc}"]) from exc
    if not isinstance(content, dict):
        raise SpecError(name, ["line 1: a job file is a mapping that begins with name: …"])
    problems = (
        prompt_problems(content.get("prompt"), tree) | miss_problems(content, tree) | step_problems(content, tree)
    )
    try:
        spec = JobSpec.model_validate(content)
        problems |= match_problems(spec, tree)
    except ValidationError as exc:
        problems |= {described(error, tree) for error in clearest(exc.errors(), tree)}
    if problems:
        raise SpecError(name, [f"line {line}: {text}" for line, text in sorted(problems)])
    return spec


def faulty(job: Job, faults: Sequence[tuple[tuple[str | int, ...], str]]) -> SpecError:
    """The error for settings of a job file that was read, each a place in it and what is wrong there."""
    tree = None
    with contextlib.suppress(OSError, UnicodeDecodeError, yaml.YAMLError):  # it was whole when it was read
        tree = yaml.compose(job.path.read_text(encoding="utf-8"), Loader=_JobFileLoader)
    located = [(locate(at, tree), fault) for at, fault in faults]
    located.sort(key=lambda found: found[0][1])
    return SpecError(str(job.path), [f"line {line}: {place}: {fault}" for (place, line, _), fault in located])


class _JobFileLoader(yaml.SafeLoader):
    """YAML 1.2's idea of scalars: Yes, No, on, dates and 10:30 are plain text, as a choice or a value should be.

    So are digits after a zero (a postal code), which 1.1 reads as octal and 1.2 strips of the zero.
    """


_JobFileLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, _pattern, _first in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", "[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _JobFileLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _no_duplicates(loader: _JobFileLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a field's name must be plain text", problem_mark=key.start_mark)
        if key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"{key.value} is here a second time", problem_mark=key.start_mark)
        seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


_JobFileLoader.add_constructor("tag:yaml.org,2002:map", _no_duplicates)
