"""Long JSON in parts that SQL can take apart: for all of it at once it would take twenty times the room. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from batchinfer.core.long_texts import KeepText, is_long, token

PART = 65_536  # characters
JsonPath = tuple[str, ...]
"""The fields that lead to a list; none where the value is one itself."""


def json_parts(text: str, lists: Collection[JsonPath], keep: KeepText) -> Iterator[str]:
    """The JSON text as often as needed, each time with a part of the items of these lists, of which equal ones come once.

    Long strings are kept, with tokens in their place. Other lists are empty, since no part of an entry lies in one.
    """
    found = list[list[Any]]()
    value = _reduced(json.loads(text), (), lists, found, keep)
    items = [_different(held) for held in found]
    count = len(json.dumps(value, ensure_ascii=False)) // PART + 1
    for number in range(count):
        for held, every in zip(found, items, strict=True):
            step = -(-len(every) // count)
            held[:] = every[number * step : (number + 1) * step]
        yield json.dumps(value, ensure_ascii=False)


def _reduced(
    value: Any, place: JsonPath | None, lists: Collection[JsonPath], found: list[list[Any]], keep: KeepText
) -> Any:
    """A value without what no part needs. place: None within a list. found: takes the lists that are to be divided."""
    if isinstance(value, str):
        return token(value, keep) if is_long(value) else value
    if isinstance(value, dict):
        return {
            name: _reduced(part, None if place is None else (*place, name), lists, found, keep)
            for name, part in value.items()
        }
    if not isinstance(value, list):
        return value
    if place is None or place not in lists:
        return []
    found.append([_reduced(item, None, lists, found, keep) for item in value])
    return found[-1]


def _different(items: list[Any]) -> list[Any]:
    """Each of them once, in the order of their JSON."""
    by_text = {json.dumps(item, ensure_ascii=False): item for item in items}
    return [by_text[text] for text in sorted(by_text)]
