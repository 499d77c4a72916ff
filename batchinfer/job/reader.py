"""Reads job.yaml: finds it, parses it, and says every fault with its line."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from batchinfer.errors import SpecError, UsageError
from batchinfer.job.spec import JobSpec, PromptSpec

FILE = "job.yaml"
ROOTS_VARIABLE = "BATCHINFER_INPUT_ROOTS"


@dataclass(frozen=True, slots=True)
class Job:
    """A job file that was read: what it says and where it stands."""

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
        # What the path resolves to counts: a link must not lead out. Of a glob, its fixed part is resolved.
        for root in (self.folder, *self.roots):
            if full.resolve().is_relative_to(root.resolve()):
                return full
        raise SpecError(
            str(self.path),
            [f"{field}: {text} is outside the job's folder: put it there, or name its root in ${ROOTS_VARIABLE}."],
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
    near = difflib.get_close_matches(name, known, n=1)
    hint = (
        f"Did you mean {near[0]}?"
        if near
        else f"There are: {', '.join(known)}."
        if known
        else "Make one: batchinfer init."
    )
    raise UsageError(f"There is no job {name}: neither jobs/{name}/{FILE} nor {Path(name) / FILE} exists. {hint}")


def _absolute(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))  # without .., so that paths can be compared


def parse(text: str, name: str) -> JobSpec:
    """The job that a YAML text describes. `name` is the file's, for messages."""
    try:
        tree = yaml.compose(text, Loader=_Loader)
        content = yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise SpecError(name, [f"line {line}: not valid YAML: {exc.problem}"]) from exc
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        fault = f"the character U+{exc.character:04X} may not stand in it"
        raise SpecError(name, [f"line {line}: not valid YAML: {fault}"]) from exc
    except (yaml.YAMLError, ValueError) as exc:  # ValueError: a tag, such as !!int, on what it is not
        raise SpecError(name, [f"not valid YAML: {exc}"]) from exc
    if not isinstance(content, dict):
        raise SpecError(name, ["line 1: a job file is a mapping that begins with name: …"])
    problems = (
        _prompt_problems(content.get("prompt"), tree) | _miss_problems(content, tree) | _step_problems(content, tree)
    )
    try:
        spec = JobSpec.model_validate(content)
        problems |= _match_problems(spec, tree)
    except ValidationError as exc:
        problems |= {_problem(error, tree) for error in _clearest(exc.errors(), tree)}
    if problems:
        raise SpecError(name, [f"line {line}: {text}" for line, text in sorted(problems)])
    return spec


def _prompt_problems(prompt: Any, tree: yaml.Node | None) -> set[tuple[int, str]]:
    """(line, sentence) for what is wrong with the template and its inline examples, whatever else is off."""
    from batchinfer.prompting.template import PromptTemplate, shown

    if not isinstance(prompt, dict) or not isinstance(template := prompt.get("template"), str):
        return set()
    try:
        spec = PromptSpec.model_validate(prompt)
    except ValidationError:  # told by whoever checks the whole file
        spec = PromptSpec(template=template)
    examples = [] if isinstance(spec.examples, str) else spec.examples
    found: list[str] = []
    try:
        examples = examples if isinstance(spec.examples, str) else shown(examples, spec.shots, "")
    except SpecError as exc:
        found += exc.problems
    try:
        PromptTemplate(spec, examples, "")
    except SpecError as exc:
        found += exc.problems
    return {(_prompt_line(problem, tree), problem) for problem in found}


def _prompt_line(problem: str, tree: yaml.Node | None) -> int:
    """The line of the field of prompt that a sentence begins with."""
    named = re.match(r"prompt\.(\w+)(?:, number (\d+))?", problem)
    assert named is not None
    return _locate(("prompt", named[1], *([int(named[2]) - 1] if named[2] else [])), tree)[1]


def _miss_problems(content: Mapping[str, Any], tree: yaml.Node | None) -> set[tuple[int, str]]:
    """(line, sentence) for why a job cannot take misses in: a miss has the columns of the lookup key and no others."""
    given = content.get("input")
    if not isinstance(given, dict) or given.get("include_misses") is None:
        return set()
    line, found = _locate(("input", "include_misses"), tree)[1], []
    key, optional, where = given.get("key"), given.get("optional"), given.get("where")
    if content.get("prompt") is None and content.get("model") is None:
        found.append("the job has no prompt and no model, so nothing would answer them: leave it out.")
    if isinstance(key, list):
        may_lack = [*key, *(optional if isinstance(optional, list) else [])]
        used = [name for name in _template_columns(content.get("prompt")) if name not in may_lack]
        filtered = [str(name) for name in where if name not in key] if isinstance(where, dict) else []
        for names, what in ((used, "prompt.template uses"), (filtered, "input.where names")):
            if names:
                it = "it" if len(names) == 1 else "them"
                found.append(
                    f"{what} {', '.join(names)}, and a miss has only the columns of input.key: put {it} there."
                )
    return {(line, f"input.include_misses: {problem}") for problem in found}


def _step_problems(content: Mapping[str, Any], tree: yaml.Node | None) -> set[tuple[int, str]]:
    """(line, sentence) for steps that look at a column which the template does not use.

    An answer is read once for all rows with one prompt; they share no other columns.
    """
    output, used = content.get("output"), _template_columns(content.get("prompt"))
    steps = output.get("steps") if isinstance(output, dict) else None
    found = set()
    for number, step in enumerate(steps if isinstance(steps, list) else []):
        for name, column in step.items() if isinstance(step, dict) else ():
            if name in ("drop_echo", "drop_wrong_script") and isinstance(column, str) and used and column not in used:
                line = _locate(("output", "steps", number), tree)[1]
                says = f"the template does not use the column {column}, which rows with one answer need not share"
                found.add((line, f"output.steps.{number}: {says}; it uses {', '.join(used)}."))
    return found


def _match_problems(spec: JobSpec, tree: yaml.Node | None) -> set[tuple[int, str]]:
    """(line, sentence) for each name in the match section that is no part of the job's entries."""
    if spec.match is None:
        return set()
    match, key = spec.match, spec.input.key
    named: list[tuple[tuple[str | int, ...], str | None]] = [
        *(((("terms", number)), part) for number, part in enumerate(match.terms)),
        (("concept",), match.concept),
        (("language",), match.language),
        *((("where", part), part) for part in match.where),
    ]
    found = set()
    for place, part in named:
        if part is None or part in key or part == "prediction":
            continue
        line = _locate(("match", *place), tree)[1]
        where = f"match.{'.'.join(map(str, place[:1]))}"
        if not re.fullmatch(r"prediction(\.[^.]+)+", part):
            found.add((line, f"{where}: {part} is no column of input.key ({', '.join(key)}), and not prediction."))
        elif spec.output.type != "json":
            found.add(
                (line, f"{where}: {part} is within a prediction, but output.type is {spec.output.type}, not json.")
            )
    return found


def _template_columns(prompt: Any) -> list[str]:
    """The columns that a template uses; none if it is off, which is told elsewhere."""
    from batchinfer.prompting.template import PromptTemplate

    if not isinstance(prompt, dict) or not isinstance(template := prompt.get("template"), str):
        return []
    try:
        return PromptTemplate(PromptSpec(template=template), [], "").columns
    except SpecError:
        return []


class _Loader(yaml.SafeLoader):
    """YAML 1.2's idea of scalars: Yes, No, on, dates and 10:30 are plain text, as a choice or a value should be.

    So are digits after a zero (a postal code), which 1.1 reads as octal and 1.2 robs of the zero.
    """


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, _pattern, _first in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", "[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _no_duplicates(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a field's name must be plain text", problem_mark=key.start_mark)
        if key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"{key.value} stands here a second time", problem_mark=key.start_mark)
        seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _no_duplicates)


def _clearest(errors: list[Any], tree: yaml.Node | None) -> list[Any]:
    """Where a value may be of several kinds, pydantic complains for each: keep what speaks of the kind that was meant."""
    vague = ("string_type", "literal_error", "list_type", "model_type", "int_parsing", "int_type")
    clear = [error["loc"] for error in errors if error["type"] not in vague]
    return [
        error
        for error in errors
        if error["type"] not in vague
        or _is_in_file(error["loc"], tree)
        or not any(loc[: len(error["loc"]) - 1] == error["loc"][:-1] for loc in clear)
    ]


def _is_in_file(loc: tuple[int | str, ...], tree: yaml.Node | None) -> bool:
    """Whether the place's last part stands in the file; else it is pydantic's name for one of several kinds."""
    node, child = tree, None
    for part in loc:
        child = _child(node, part)
        node = child[1] if child is not None else node
    return child is not None


def _problem(error: Any, tree: yaml.Node | None) -> tuple[int, str]:
    """(line, sentence) for one of pydantic's errors."""
    place, line, model = _locate(error["loc"], tree)
    kind, message = error["type"], error["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        unknown = str(error["loc"][-1])
        names = [field.alias or name for name, field in model.model_fields.items()] if model else []
        near = difflib.get_close_matches(unknown, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}."
        return line, f"{place}: there is no such field; {hint}"
    if kind == "missing":
        return line, f"{place}: is missing."
    sentence = message[0].lower() + message[1:]
    got = error.get("input")
    shown = f" (it is {got!r})" if isinstance(got, str | int | float | bool) and kind != "value_error" else ""
    return line, f"{place or 'the file'}: {sentence}{shown}."


def _locate(loc: tuple[int | str, ...], tree: yaml.Node | None) -> tuple[str, int, type[BaseModel] | None]:
    """(dotted place, line, model that owns the last name). pydantic's union tags name nothing in the file: skipped."""
    node, line = tree, 1
    names: list[str] = []
    model: type[BaseModel] | None = JobSpec
    owner = model
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        child = _child(node, part)
        if child is None and not (last and _is_field(model, part)) and (names or not last):
            continue
        names.append(str(part))
        owner, model = model, _section(model, part)
        if child is not None:
            line, node = child[0], child[1]
    return ".".join(names), line, owner


def _child(node: yaml.Node | None, part: int | str) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line + 1, node.value[part]
    return None


def _is_field(model: type[BaseModel] | None, part: int | str) -> bool:
    return model is not None and any(part in (name, field.alias) for name, field in model.model_fields.items())


def _section(model: type[BaseModel] | None, part: int | str) -> type[BaseModel] | None:
    """The section that a field holds; a list's items are of the section that the list names."""
    if model is None or isinstance(part, int):
        return model
    for name, field in model.model_fields.items():
        if part in (name, field.alias):
            return _first_model(field.annotation)
    return None


def _first_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        if (found := _first_model(inner)) is not None:
            return found
    return None
