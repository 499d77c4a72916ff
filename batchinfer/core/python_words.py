"""Errors in the words of those who call from Python: an option of the command line is an argument there.

Sentences name options as they are typed. What stands in a command of its own, such as batchinfer run JOB --yes, stays: a
shell is at hand there, too.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from batchinfer.errors import BatchinferError

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")

SWITCHES = {"yes", "allow-empty", "retry-failed", "update-model"}
FOLDER = re.compile(r" (?:with --home|\(--home\))|; the command's --help explains them")
OPTIONS = re.compile(
    r"(?:batchinfer|pip) [a-z]+[^,;:.]*|(?<![^\s(])(?:--force --why (?P<why>\w+)|--(?P<option>[a-z]+(?:-[a-z]+)*))"
)


def reworded(text: str) -> str:
    """A sentence with arguments in place of options."""

    def argument(found: re.Match[str]) -> str:
        if found["why"]:
            return f"force={found['why']}"
        if not found["option"]:
            return found[0]
        name = found["option"].replace("-", "_")
        return f"{name}=True" if found["option"] in SWITCHES else name

    return OPTIONS.sub(argument, FOLDER.sub("", text))


def in_python(function: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
    """The function, with its errors in the words of its callers."""

    @functools.wraps(function)
    def call(*arguments: Arguments.args, **named: Arguments.kwargs) -> Returned:
        try:
            return function(*arguments, **named)
        except BatchinferError as exc:
            exc.reword(reworded)
            raise

    return call
