"""The parts of a template that could stand in another order: lines with columns, each with the heading above it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from batchinfer.errors import SpecError
from batchinfer.prompting.spec import PromptSpec
from batchinfer.prompting.template import PromptTemplate

FEWEST = 2  # parts that can change places
STATEMENT = re.compile(r"\{[%#]")  # of what stands in one, nobody can say whether it may move


@dataclass(frozen=True, slots=True)
class TemplateParts:
    """A template, taken apart.

    head: static paragraphs before all columns, which stay where they are.
    parts: what may change places: a line with columns, and the static lines right above it.
    gaps: the line breaks between them, which stay where they are.
    tail: static text after all columns, which stays: it is what the answer follows.
    """

    head: str
    parts: tuple[str, ...]
    gaps: tuple[str, ...]
    tail: str

    def arranged(self, order: Sequence[int]) -> str:
        """The template with its parts in this order."""
        first, *rest = (self.parts[number] for number in order)
        middle = "".join(gap + part for gap, part in zip(self.gaps, rest, strict=True))
        return self.head + first + middle + self.tail

    def columns(self, number: int) -> list[str]:
        """Those of a part."""
        return PromptTemplate(PromptSpec(template=self.parts[number]), [], "").columns


def taken_apart(template: str) -> TemplateParts | None:
    """None where it has fewer than two parts, or statements."""
    lines = template.splitlines(keepends=True)
    with_columns = [number for number, line in enumerate(lines) if "{{" in line]
    if (
        STATEMENT.search(template)
        or len(with_columns) < FEWEST
        or any(line.count("{{") != line.count("}}") for line in lines)
    ):
        return None
    begins = _after_blank(lines[: with_columns[0]])
    parts, gaps = list[str](), list[str]()
    for last in with_columns:
        own = lines[begins : last + 1]
        blank = next(number for number, line in enumerate(own) if line.strip()) if parts else 0
        if parts:
            parts[-1], ending = _without_break(parts[-1])
            gaps.append(ending + "".join(own[:blank]))
        parts.append("".join(own[blank:]))
        begins = last + 1
    parts[-1], ending = _without_break(parts[-1])
    head = "".join(lines[: _after_blank(lines[: with_columns[0]])])
    found = TemplateParts(head, tuple(parts), tuple(gaps), ending + "".join(lines[begins:]))
    try:
        is_whole = all(found.columns(number) for number in range(len(parts)))
    except SpecError:  # an expression that is none by itself
        return None
    return found if is_whole else None


def _after_blank(lines: Sequence[str]) -> int:
    """The number of the line after the last blank one; 0 without one."""
    return max((number for number, line in enumerate(lines, 1) if not line.strip()), default=0)


def _without_break(text: str) -> tuple[str, str]:
    """A text without the line break at its end, and that."""
    bare = text.removesuffix("\n")
    return bare, text[len(bare) :]
