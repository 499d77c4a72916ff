"""YAML as job files have it, within limits: any file is read, or refused in words, and soon."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

MOST_BYTES = 1_000_000
MOST_LEVELS = 100  # of lists and mappings
MOST_NODES = 30_000  # values, with each alias in full
MOST_DIGITS = 40  # of a number
TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq", "merge"))


class YamlFault(Exception):
    """What is wrong with a file, as a sentence.

    line: where.
    """

    def __init__(self, line: int, sentence: str) -> None:
        super().__init__(sentence)
        self.line = line


def read(text: str) -> tuple[yaml.Node | None, Any]:
    """The tree of a YAML text, which knows the lines, and its content. Raises YamlFault."""
    if len(text) > MOST_BYTES:
        raise YamlFault(1, f"not a job file: it has more than {MOST_BYTES:,} characters")
    try:
        loader = JobFileLoader(text)
        tree = loader.get_single_node()
        if tree is None:
            return None, None
        _check(tree)
        fields = [(node, list(node.value)) for node in _nodes(tree) if isinstance(node, yaml.MappingNode)]
        content = loader.construct_document(tree)
        for node, value in fields:  # merged fields are not in the file
            node.value = value
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise YamlFault(line, f"not valid YAML: {exc.problem}") from exc
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        raise YamlFault(line, f"not valid YAML: the character U+{exc.character:04X} is not allowed") from exc
    except RecursionError as exc:
        raise YamlFault(1, TOO_DEEP) from exc
    # a tag, such as !!int, on what it is not
    except (yaml.YAMLError, ValueError, TypeError, LookupError, OverflowError) as exc:
        raise YamlFault(1, f"not valid YAML: {exc}") from exc
    return tree, content


TOO_LARGE = f"too large: at most {MOST_NODES:,} values, aliases in full"
TOO_DEEP = f"nested too deeply: lists and mappings may be within one another {MOST_LEVELS} times"


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _nodes(tree: yaml.Node) -> Iterator[yaml.Node]:
    """Each node once, whatever refers to it."""
    seen, waiting = {id(tree)}, [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for child in _children(node):
            if id(child) not in seen:
                seen.add(id(child))
                waiting.append(child)


def _check(tree: yaml.Node) -> None:
    """Raises YamlFault for what no job file needs: the tree is small then, also with each alias in full."""
    for node in _nodes(tree):
        if (fault := _fault(node)) is not None:
            raise YamlFault(node.start_mark.line + 1, fault)
    sizes: dict[int, int] = {}
    levels: dict[int, int] = {}
    path, under_way = [(tree, iter(_children(tree)))], {id(tree)}
    while path:
        node, children = path[-1]
        child = next((each for each in children if id(each) not in sizes), None)
        if child is None:
            parts = _children(node)
            sizes[id(node)] = 1 + sum(sizes[id(part)] for part in parts)
            levels[id(node)] = max((levels[id(part)] + 1 for part in parts), default=0)
            if levels[id(node)] > MOST_LEVELS:
                raise YamlFault(node.start_mark.line + 1, TOO_DEEP)
            if sizes[id(node)] > MOST_NODES:
                raise YamlFault(node.start_mark.line + 1, TOO_LARGE)
            under_way.discard(id(node))
            path.pop()
        elif id(child) in under_way:
            raise YamlFault(child.start_mark.line + 1, "an alias refers to what it is in, which would have no end")
        else:
            under_way.add(id(child))
            path.append((child, iter(_children(child))))


def _fault(node: yaml.Node) -> str | None:
    """What is wrong with a value by itself."""
    if node.tag not in TAGS:
        return f"not valid YAML: the tag {node.tag} is not known here, leave it out"
    if not isinstance(node, yaml.ScalarNode):
        return None
    text = node.value
    if (bad := re.search("[\\ud800-\\udfff\\0]", text)) is not None:
        return f"a text has U+{ord(bad[0]):04X}, which is not a character that can be stored: remove it"
    if node.tag.endswith((":int", ":float")):
        if len(text) > MOST_DIGITS:
            return f"a number has more than {MOST_DIGITS} digits: put it in quotes if it is a text"
        if node.tag.endswith(":float") and not _is_finite(text):
            return f"{text} is not a number that can be stored"
    return None


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:  # reported where it is read
        return True


class JobFileLoader(yaml.SafeLoader):
    """YAML 1.2's idea of scalars: Yes, No, on, dates and 10:30 are plain text, as a choice or a value should be.

    So are digits after a zero (a postal code), which 1.1 reads as octal and 1.2 strips of the zero.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._count = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Counts: reading too many values takes long."""
        self._count += 1
        if self._count > MOST_NODES:
            raise YamlFault(self.line + 1, TOO_LARGE)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        super().fetch_flow_collection_start(token)
        self._check_depth(self.flow_level)

    def add_indent(self, column: int) -> bool:
        self._check_depth(len(self.indents))
        return bool(super().add_indent(column))

    def _check_depth(self, levels: int) -> None:
        """Before all of a deep file is read, which takes the longer the deeper it is."""
        if levels > MOST_LEVELS:
            raise YamlFault(self.line + 1, TOO_DEEP)


JobFileLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, _pattern, _first in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", "[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    JobFileLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _no_duplicates(loader: JobFileLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a field's name must be plain text", problem_mark=key.start_mark)
        if key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"{key.value} appears a second time", problem_mark=key.start_mark)
        seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


JobFileLoader.add_constructor("tag:yaml.org,2002:map", _no_duplicates)
