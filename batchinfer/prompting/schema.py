"""JSON Schemas of answers: checked once when a job is read, so that checking an answer against one comes to an end. Pure."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from re._parser import parse as parsed  # type: ignore[import-not-found]  # which alone tells how long a match is
from typing import Any

from batchinfer.core.schema_keywords import PART_MAPS, PARTS, SAME_VALUE, SAME_VALUE_MAPS

MOST_PATTERN = 65_536  # characters of a regular expression: the time that compiling one takes grows faster than it
MOST_ANSWER = 1 << 24  # characters, as of other texts
LONG_TEXT = 10_000  # characters; Python cannot interrupt one search of a longer text for a pattern
REFERENCES = ("$ref", "$dynamicRef")
POSIX_CLASS = re.compile(r"\[:\^?[a-z]+:\](?=[^\]]*\])")  # which Python would take for a set of these letters


def compiles(pattern: str) -> str:
    """The pattern, if it is a regular expression that some answer can match. Raises ValueError."""
    if len(pattern) > MOST_PATTERN:
        raise ValueError(f"has {len(pattern):,} characters, and a regular expression may have {MOST_PATTERN:,}")
    if found := POSIX_CLASS.search(pattern):
        raise ValueError(
            f"is not a valid regular expression here: {found[0]} is not known, write letters as a-z or \\w"
        )
    try:
        # Python warns of sets that it may read otherwise some day
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            re.compile(pattern)
            least = parsed(pattern).getwidth()[0]
    except (re.error, OverflowError) as exc:
        raise ValueError(f"is not a valid regular expression: {exc}") from exc
    except RecursionError as exc:
        raise ValueError("is not a valid regular expression: it is nested too deeply") from exc
    if least > MOST_ANSWER:
        raise ValueError(f"matches no text of less than {least:,} characters, and one may have {MOST_ANSWER:,}")
    return pattern


def check_schema(schema: dict[str, Any]) -> None:
    """Raises ValueError, the rest of a sentence, for what is no schema or could never come to an end."""
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
        found = _Schemas(schema)
    except SchemaError as exc:
        raise ValueError(f"is not a valid JSON Schema: {exc.message[:200]}") from exc
    except RecursionError as exc:
        raise ValueError("is nested too deeply") from exc
    except (OverflowError, TypeError, AttributeError) as exc:
        raise ValueError(f"is not a valid JSON Schema: {exc}") from exc
    for pattern in found.patterns():
        try:
            compiles(pattern)
        except ValueError as exc:
            raise ValueError(f"has the pattern {pattern[:60]}, which {exc}") from exc
    if (name := found.endless()) is not None:
        raise ValueError(f"refers to {name}, which leads back to itself without an end")


def validator_of(schema: dict[str, Any]) -> Any:
    """The validator of a schema that was checked. It fetches nothing."""
    from jsonschema import Draft202012Validator, ValidationError, validators
    from referencing import Registry

    def pattern(validator: Any, pattern: str, value: Any, _: Any) -> Iterator[ValidationError]:
        if validator.is_type(value, "string") and not _is_in(value, re.compile(pattern)):
            yield ValidationError(f"{value!r} does not match {pattern!r}")

    extend: Callable[..., Any] = validators.extend
    return extend(Draft202012Validator, {"pattern": pattern})(schema, registry=Registry())


def _is_in(text: str, pattern: re.Pattern[str]) -> bool:
    """Whether a pattern is anywhere in a text; long ones are tried place by place, which can be interrupted."""
    if len(text) <= LONG_TEXT:
        return pattern.search(text) is not None
    return any(pattern.match(text, place) is not None for place in range(len(text) + 1))


def referred(root: dict[str, Any], reference: str) -> Any:
    """What a reference in a schema that was checked leads to."""
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    registry: Registry[Any] = Registry()
    return registry.resolver_with_root(DRAFT202012.create_resource(root)).lookup(reference).contents


class _Schemas:
    """All schemas within one, as a graph. Raises ValueError for a reference that leads nowhere."""

    def __init__(self, root: dict[str, Any]) -> None:
        from referencing import Registry
        from referencing.jsonschema import DRAFT202012

        registry: Registry[Any] = Registry()
        self._resolver = registry.resolver_with_root(DRAFT202012.create_resource(root))
        self._nodes: dict[int, dict[str, Any]] = {}
        self._same: dict[int, list[tuple[str, int]]] = {}  # the schemas that judge the same value, each with its name
        waiting: list[Any] = [root]
        while waiting:
            node = waiting.pop()
            if isinstance(node, dict) and id(node) not in self._nodes:
                self._nodes[id(node)] = node
                same = [*_within(node, SAME_VALUE, SAME_VALUE_MAPS), *self._referred(node)]
                self._same[id(node)] = [(name, id(child)) for name, child in same]
                waiting += [child for _, child in same]
                waiting += [child for _, child in _within(node, PARTS, PART_MAPS)]

    def _referred(self, node: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        from referencing import exceptions

        for reference in (node[name] for name in REFERENCES if isinstance(node.get(name), str)):
            try:
                target = self._resolver.lookup(reference).contents
            except (exceptions.Unresolvable, ValueError) as exc:
                raise ValueError(f"refers to {reference}, which is not in it, and nothing is fetched") from exc
            if not isinstance(target, dict | bool):
                raise ValueError(f"refers to {reference}, which is not a schema")  # noqa: TRY004 - pydantic wants it
            yield reference, target

    def patterns(self) -> Iterator[str]:
        """All regular expressions in them."""
        for node in self._nodes.values():
            if isinstance(pattern := node.get("pattern"), str):
                yield pattern
            names = node.get("patternProperties")
            yield from map(str, names if isinstance(names, dict) else ())

    def endless(self) -> str | None:
        """The name of a reference that leads back to where it stands, about the same value; None if there is none."""
        done: set[int] = set()
        for start in self._nodes:
            path, under_way = [(start, iter(self._same[start]))], {start}
            while path:
                node, children = path[-1]
                name, child = next(children, ("", None))
                if child is None:
                    path.pop()
                    under_way.discard(node)
                    done.add(node)
                elif child in under_way:
                    return name
                elif child in self._same and child not in done:
                    path.append((child, iter(self._same[child])))
                    under_way.add(child)
        return None


def _within(node: dict[str, Any], keywords: tuple[str, ...], maps: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """The schemas that some keywords of a schema hold, each with the keyword."""
    for keyword in keywords:
        held = node.get(keyword)
        if keyword in maps:
            children = list(held.values()) if isinstance(held, dict) else []
        else:
            children = held if isinstance(held, list) else [held]
        yield from ((keyword, child) for child in children if isinstance(child, dict))
