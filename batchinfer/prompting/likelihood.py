"""The text of a row whose likelihood after the prompt is the row's prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchinfer.prompting.output import OutputSpec
from batchinfer.prompting.spec import PromptSpec
from batchinfer.prompting.template import PromptTemplate, TemplateFault

FIELD = "output.text"


class ScoredText:
    """The template of `output.text`, checked once, then filled for each row.

    columns: those that it uses.
    """

    def __init__(self, template: str, path: str) -> None:
        """Raises SpecError, naming `path`."""
        self._template = PromptTemplate(PromptSpec(template=template, format="completion"), [], path, field=FIELD)
        self.columns = self._template.columns

    def compile(self) -> None:
        """Makes it ready to be filled. Raises SpecError."""
        self._template.compile()

    def of(self, row: Mapping[str, Any]) -> str:
        """A row's text, without the white space around it. Raises TemplateFault, also where nothing is left."""
        [(_, filled)] = self._template.messages(row)
        text = filled.strip()
        if not text:
            raise TemplateFault(f"{FIELD} is empty, so there is nothing to score.")
        return text


def scored_text(output: OutputSpec, path: str) -> ScoredText | None:
    """That of a job whose output is a likelihood. Raises SpecError, naming `path`."""
    return None if output.text is None else ScoredText(output.text, path)


def used_columns(prompt: PromptSpec, output: OutputSpec, path: str) -> list[str]:
    """The columns that a row's question is made of, in the order in which they first appear. Raises SpecError."""
    scored = scored_text(output, path)
    return list(dict.fromkeys([*PromptTemplate(prompt, [], path).columns, *(scored.columns if scored else ())]))
