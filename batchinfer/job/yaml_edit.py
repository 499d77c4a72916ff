"""A job file with some fields changed, and all else as people wrote it, comments too."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from batchinfer.core.keys import canonical_json
from batchinfer.job import yaml_file
from batchinfer.job.yaml_file import JobFileLoader

TEXT_TAG = "tag:yaml.org,2002:str"
REMOVED = object()
"""As the new value of a field: the field goes."""


class CannotEdit(Exception):
    """A file in which the fields cannot be changed without touching others."""


class _Dumper(yaml.SafeDumper):
    """YAML that the loader of job files reads as the same values."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - as the base class calls it
        return True


def _represented(dumper: _Dumper, value: str) -> yaml.Node:
    read: Any = JobFileLoader("")
    plain = read.resolve(yaml.ScalarNode, value, (True, False)) == TEXT_TAG
    style = "|" if "\n" in value else None if plain else '"'
    return dumper.represent_scalar(TEXT_TAG, value, style=style)


_Dumper.add_representer(str, _represented)


def edited(text: str, section: str | Sequence[str], fields: Mapping[str, Any]) -> str:
    """The text with these fields of a section set, or removed. Raises CannotEdit if anything else would change.

    section: its name, or the names that lead to one within others.
    """
    text = text if text.endswith("\n") else f"{text}\n"
    place = [section] if isinstance(section, str) else list(section)
    _, content = yaml_file.read(text)
    try:
        wanted = _with_fields(content, place, fields)
        for name, value in fields.items():
            text = _with_field(text, place, name, value)
        _, found = yaml_file.read(text)
    except (yaml_file.YamlFault, TypeError) as exc:  # an alias, or no mapping
        raise CannotEdit from exc
    if canonical_json(found) != canonical_json(wanted):
        raise CannotEdit
    return text


def _with_fields(content: Mapping[str, Any], place: Sequence[str], fields: Mapping[str, Any]) -> dict[str, Any]:
    """A section's content with fields of it, or of one within it, changed."""
    if place:
        return {**content, place[0]: _with_fields(content[place[0]], place[1:], fields)}
    return {name: value for name, value in {**content, **fields}.items() if value is not REMOVED}


def _with_field(text: str, place: Sequence[str], name: str, value: Any) -> str:
    node, content = yaml_file.read(text)
    assert isinstance(node, yaml.MappingNode)
    for depth, section in enumerate(place):
        key, node = next(pair for pair in node.value if pair[0].value == section)
        content = content[section]
        if not isinstance(node, yaml.MappingNode) or not node.value:
            raise CannotEdit
        if node.flow_style:  # on one line: written again as a whole
            whole = {section: _with_fields(content, place[depth + 1 :], {name: value})}
            return _replaced(text, key.start_mark.line, _last_line(text, node), _block(whole, key.start_mark.column))
    indent = node.value[0][0].start_mark.column
    block = "" if value is REMOVED else _block({name: value}, indent)
    for own, old in node.value:
        if own.value == name:
            return _replaced(text, own.start_mark.line, _last_line(text, old), block)
    end = _last_line(text, node.value[-1][1])
    return _replaced(text, end + 1, end, block)


def _block(content: Mapping[str, Any], indent: int) -> str:
    dumped = yaml.dump(
        dict(content), Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=10_000, default_flow_style=False
    )
    return "".join(f"{' ' * indent}{line}" if line.strip() else line for line in dumped.splitlines(keepends=True))


def _last_line(text: str, node: Any) -> int:
    """The last line of a field, from 0; comments and blank lines after it are not its own."""
    is_text = isinstance(node, yaml.ScalarNode)
    if node.style not in ("|", ">") if is_text else node.flow_style:
        return int(node.end_mark.line)
    lines, last = text.splitlines(), node.end_mark.line - 1  # it ends where the next field begins
    while last > node.start_mark.line and (not lines[last].strip() or (not is_text and re.match(r"\s*#", lines[last]))):
        last -= 1
    return int(last)


def _replaced(text: str, first: int, last: int, block: str) -> str:
    """Lines first to last, counted from 0, replaced."""
    lines = text.splitlines(keepends=True)
    return "".join([*lines[:first], block, *lines[last + 1 :]])
