"""A fault of a job file, as its line and one sentence."""

from __future__ import annotations

from typing import Any, get_args

import yaml
from pydantic import BaseModel

from batchinfer.errors import did_you_mean
from batchinfer.job.spec import JobSpec


def clearest(errors: list[Any], tree: yaml.Node | None) -> list[Any]:
    """The errors about the kind that was meant, where a value may be of several and pydantic complains for each."""
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
    """Whether the place's last part is in the file; otherwise it is pydantic's name for one of several kinds."""
    node, child = tree, None
    for part in loc:
        child = _child(node, part)
        node = child[1] if child is not None else node
    return child is not None


def described(error: Any, tree: yaml.Node | None) -> tuple[int, str]:
    """Line and sentence for one of pydantic's errors."""
    place, line, model = locate(error["loc"], tree)
    kind, message = error["type"], error["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        unknown = str(error["loc"][-1])
        names = _names(model) if model else []
        hint = did_you_mean(unknown, names) or f"known are {', '.join(names)}."
        return line, f"{place}: there is no such field; {hint}"
    if kind == "missing":
        return line, f"{place}: is missing."
    if kind == "model_type" and (section := _section(model, place.rpartition(".")[2])) is not None:
        message = f"input should be a section with the fields {', '.join(_names(section))}"
    sentence = message[0].lower() + message[1:]
    got = error.get("input")
    shown = f" (it is {got!r})" if isinstance(got, str | int | float | bool) and kind != "value_error" else ""
    return line, f"{place or 'the file'}: {sentence}{shown}."


def _names(model: type[BaseModel]) -> list[str]:
    """The fields of a section as a job file has them."""
    return [field.alias or name for name, field in model.model_fields.items()]


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
