"""The parts of a template that could stand in another order, where its text does not say that they stand in this one. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from batchinfer.errors import SpecError
from batchinfer.prompting.spec import PromptSpec
from batchinfer.prompting.template import PromptTemplate

FEWEST = 2  # parts that can change places
STATEMENT = re.compile(r"\{[%#]")  # of what stands in one, nobody can say whether it may move
# a line that is a column, or its name and the column
LABELLED = re.compile(r"\s*(?:[^{}<>`.!?]*:)?\s*\{\{[^{}]*\}\}\s*")
# What tells where other parts stand, or which of several a part is.
ORDERED = re.compile(
    r"\b(?:first|second|third|last|former|latter|above|below|before|after|previous|preceding|next|following|then|earlier|later)\b"
    r"|^\s*(?:\d+|[a-z])[.):]|\b(?:[a-z]|\d+)\s*:",
    re.IGNORECASE | re.MULTILINE,
)
TAG = re.compile(r"<(/?)([a-zA-Z][\w-]*)[^<>]*>")
FENCE = "```"


@dataclass(frozen=True, slots=True)
class TemplateParts:
    """A template, taken apart.

    head: static text before all columns, which stays where it is.
    parts: what may change places: paragraphs with columns, or lines that are a name and a column.
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
    """None where nobody can be sure that another order says the same.

    That is where it has statements, static text between its parts, a tag or a fence that one part opens and another closes, or
    words of order.
    """
    static = re.sub(r"\{\{.*?\}\}", "{{}}", template, flags=re.DOTALL)
    if STATEMENT.search(template) or ORDERED.search(static):
        return None
    body = template.strip("\n")
    head, tail = template[: template.index(body)], template[template.index(body) + len(body) :]
    paragraphs = re.split(r"(\n(?:[ \t]*\n)+)", body)  # and what stands between them
    found = _of_pieces(paragraphs) or _of_pieces(re.split(r"(\n)", body), LABELLED)
    if found is None or not _is_sound(found, template):
        return None
    return replace(found, head=head + found.head, tail=found.tail + tail)


def _of_pieces(pieces: Sequence[str], form: re.Pattern[str] | None = None) -> TemplateParts | None:
    """Parts from pieces of text with gaps between them; None where fewer than two have columns, or one between them has none.

    form: what each piece with columns must look like.
    """
    with_columns = [place for place in range(0, len(pieces), 2) if "{{" in pieces[place]]
    if len(with_columns) < FEWEST:
        return None
    first, last = with_columns[0], with_columns[-1]
    if len(with_columns) != (last - first) // 2 + 1:
        return None
    parts = tuple(pieces[first : last + 1 : 2])
    if form is not None and not all(form.fullmatch(part) for part in parts):
        return None
    gaps = tuple(pieces[first + 1 : last : 2])
    return TemplateParts("".join(pieces[:first]), parts, gaps, "".join(pieces[last + 1 :]))


def _is_sound(found: TemplateParts, template: str) -> bool:
    """Whether each part closes what it opens, and has columns of its own that are together those of the template."""
    for text in (*found.parts, found.head, found.tail):
        opened = sorted(name for closes, name in TAG.findall(text) if not closes)
        if opened != sorted(name for closes, name in TAG.findall(text) if closes) or text.count(FENCE) % 2:
            return False
    try:
        own = [found.columns(number) for number in range(len(found.parts))]
        whole = PromptTemplate(PromptSpec(template=template), [], "").columns
    except SpecError:  # an expression that is none by itself
        return False
    return all(own) and {name for names in own for name in names} == set(whole)
