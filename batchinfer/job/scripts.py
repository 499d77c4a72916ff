"""Whether a term is written in a script of its language, as the step drop_wrong_script has it."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from batchinfer.prompting.output import DropWrongScriptStep, WrongScript
from batchinfer.prompting.steps import function_of

COLUMN = "language"


class ScriptFault(StrEnum):
    """What the step would drop a term for: nothing, its script, or, with mixed: drop alone, letters of another one."""

    NONE = ""
    WRONG = "wrong script"
    FOREIGN_LETTERS = "foreign letters"


def script_fault() -> Callable[[str, str], ScriptFault]:
    """A function that says of a language's tag and a term what is wrong with its letters. Raises MissingExtra."""
    drop = function_of(DropWrongScriptStep(drop_wrong_script=COLUMN))
    drop_mixed = function_of(DropWrongScriptStep(drop_wrong_script=WrongScript(language=COLUMN, mixed="drop")))

    def fault(language: str, term: str) -> ScriptFault:
        row = {COLUMN: language}
        if drop([term], row) == []:
            return ScriptFault.WRONG
        return ScriptFault.FOREIGN_LETTERS if drop_mixed([term], row) == [] else ScriptFault.NONE

    return fault
