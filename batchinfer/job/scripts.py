"""Whether a term is written in a script of its language, as the step drop_wrong_script has it."""

from __future__ import annotations

from collections.abc import Callable

from batchinfer.prompting.output import DropWrongScriptStep
from batchinfer.prompting.steps import function_of

COLUMN = "language"


def foreign_script() -> Callable[[str, str], bool]:
    """A function that says of a language's tag and a term whether the step would drop it. Raises MissingExtra."""
    drop = function_of(DropWrongScriptStep(drop_wrong_script=COLUMN))
    return lambda language, term: drop([term], {COLUMN: language}) == []
