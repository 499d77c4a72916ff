"""A fault of a job file, as its line and one sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from batchinfer.errors import did_you_mean
from batchinfer.job.spec import JobSpec

SHOULD_BE = "input should be "


@dataclass(frozen=True, slots=True)
class _Fault:
    """One of pydantic's errors.

    place: of the value in the file, dotted.
    line: of the place.
    sentence: what is wrong with it.
    shown: the value, if it can be shown, as the end of the sentence.
    is_kind: whether it says only that the value is of another kind.
    """

    place: str
    line: int
    sentence: str
    shown: str = "."
    is_kind: bool = False


def described(errors: Sequence[Any], tree: yaml.Node | None) -> set[tuple[int, str]]:
    """Line and sentence for each wrong value.

    Where a value may be of several kinds, pydantic complains for each: of the kind that was meant it says more than that
    the value is none, and where nothing was, one sentence says what the value may be.
    """
    faults = [_fault(error, tree) for error in errors]
    told: dict[tuple[int, str, str], list[str]] = {}
    for fault in faults:
        if fault.is_kind and any(_says_more(other, fault) for other in faults):
            continue
        told.setdefault((fault.line, fault.place, fault.shown), []).append(fault.sentence)
    return {
        (line, f"{place or 'the file'}: {sentence}{shown}")
        for (line, place, shown), sentences in told.items()
        for sentence in _joined(sentences)
    }


def _says_more(other: _Fault, fault: _Fault) -> bool:
    """Whether a fault is of the same value and no mere question of its kind, or of a part of that value."""
    return other.place.startswith(f"{fault.place}.") or (other.place == fault.place and not other.is_kind)


def _joined(sentences: Sequence[str]) -> list[str]:
    """The sentences about one value; those that say what it should be become one."""
    wanted = [sentence.removeprefix(SHOULD_BE) for sentence in sentences if sentence.startswith(SHOULD_BE)]
    others = [sentence for sentence in sentences if not sentence.startswith(SHOULD_BE)]
    return others + ([SHOULD_BE + ", or ".join(dict.fromkeys(wanted))] if wanted else [])


def _fault(error: Any, tree: yaml.Node | None) -> _Fault:
    kind, message, at = error["type"], error["msg"].removeprefix("Value error, "), error["loc"]
    if kind == "union_tag_invalid":  # of a section with fields of its own for each kind
        name = str(error["ctx"]["discriminator"]).strip("'")
        place, line, _ = locate((*at, name), tree)
        return _Fault(place, line, f"{SHOULD_BE}{_either(error['ctx']['expected_tags'])}", _shown(error["input"][name]))
    place, line, model = locate(at, tree)
    if kind == "extra_forbidden":
        unknown = str(error["loc"][-1])
        names = _names(model) if model else []
        hint = did_you_mean(unknown, names) or f"known are {', '.join(names)}."
        return _Fault(place, line, f"there is no such field; {hint}", "")
    if kind == "missing":
        return _Fault(place, line, "is missing")
    if kind in ("model_type", "model_attributes_type") and (section := _section(model, _last_part(place))) is not None:
        message = f"{SHOULD_BE}a section with the fields {', '.join(_names(section))}"
    sentence = (message[0].lower() + message[1:]).partition(", unable to parse")[0]
    shown = _shown(None if kind == "value_error" else error.get("input"))
    return _Fault(place, line, sentence, shown, kind.endswith(("_type", "_parsing")) or kind == "literal_error")


def _shown(value: Any) -> str:
    """The end of a sentence: the value, if it can be shown."""
    return f" (it is {value!r})." if isinstance(value, str | int | float | bool) else "."


def _either(tags: str) -> str:
    """The kinds in words: 'a', 'b' or 'c'."""
    *before, last = tags.split(", ")
    return f"{', '.join(before)} or {last}" if before else last


def _last_part(place: str) -> int | str:
    """The name of a place within its section, or its number in a list."""
    name = place.rpartition(".")[2]
    return int(name) if name.isdecimal() else name


def _names(model: type[BaseModel]) -> list[str]:
    """The fields of a section as a job file has them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def line_of(problem: str, tree: yaml.Node | None) -> int:
    """The line of the place that a sentence begins with, such as prompt.shots, or prompt.examples, number 2."""
    named = re.match(r"([\w.]+)(?:, number (\d+))?", problem)
    assert named is not None
    return locate((*named[1].split("."), *([int(named[2]) - 1] if named[2] else [])), tree)[1]


def locate(loc: tuple[int | str, ...], tree: yaml.Node | None) -> tuple[str, int, type[BaseModel] | None]:
    """(dotted place, line, model that owns the last name). pydantic's union tags name nothing in the file: skipped."""
    node, line = tree, 1
    names: list[str] = []
    model: type[BaseModel] | None = JobSpec
    owner = model
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        child = _child(node, part)
        if child is None and not (last and _is_field(model, part)) and (names or not last):
            model = _of_tag(owner, names, part) or model
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


def _of_tag(owner: type[BaseModel] | None, names: Sequence[str], tag: int | str) -> type[BaseModel] | None:
    """The section of the kind that a tag names, of a field that may hold several."""
    for name, field in owner.model_fields.items() if owner is not None and names else ():
        if names[-1] in (name, field.alias):
            kinds = (each for each in get_args(field.annotation) if hasattr(each, "model_fields"))
            return next((each for each in kinds if tag in _kinds(each)), None)
    return None


def _kinds(section: type[BaseModel]) -> tuple[Any, ...]:
    """What the kind of a section may be."""
    kind = section.model_fields.get("kind")
    return () if kind is None else get_args(kind.annotation)


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
