"""What templates make, counted before it is made: a budget for each prompt, and what operators, methods and filters take of it. Pure."""

from __future__ import annotations

import re
from collections.abc import ItemsView, KeysView, Mapping, Sequence, ValuesView
from typing import Any

from jinja2.utils import Namespace

MOST_TEXT = 2**24  # bytes of one prompt
MOST_STEPS = 200_000  # turns of loops, calls and filters for one prompt
MOST_WORK = 16 * MOST_TEXT  # characters that are made on the way to one prompt
MOST_BITS = 100_000  # of an integer that is multiplied
MOST_WIDTH = 1_000_000  # of a field that is padded
MOST_INDENT = 100  # spaces
ITEM = 16  # characters that an item of a list counts for

LONG = 1_000  # characters of a text that is compared, or put between others: below, they are for nothing

PADDING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "indent", "batch", "slice", "to_bytes"})
PER_PART = frozenset({"expandtabs", "indent"})  # of these each part of the text grows, not the whole
PERCENT = "%"  # the operator, and the filter format
WRITTEN = frozenset({"join", "string", "tojson", "pprint", PERCENT, "escape", "e", "forceescape", "xmlattr"})
SORTING = frozenset({"sort", "unique", "groupby", "dictsort", "max", "min"})  # filters, which copy the texts
# What compares values in one go, or hashes them: what is held twice is then gone through twice, at each level.
COMPARING = frozenset(
    {"index", "count", "get", "fromkeys", "changed", "in", "eq", "equalto", "==", "ne", "!=", "lt", "lessthan", "<"}
    | {"le", "<=", "gt", "greaterthan", ">", "ge", ">="}
)
INSERTING = frozenset({"wordwrap", "urlize"})
HOLDING = (list, tuple, dict, set, frozenset, KeysView, ItemsView, ValuesView)
DIGITS = re.compile(r"\d{7,}")
FIELD = re.compile(r"%(?:\([^()]*\))?[-#0 +]*(\*|\d+)?(?:\.(\*|\d+))?")
NESTED_NAME = re.compile(r"%\([^)]*\(")


class BudgetSpent(Exception):
    """The template asks for more work than a prompt may take."""


class PromptBudget:
    """Work that may still be done for one prompt."""

    def __init__(self) -> None:
        self.refill()

    def refill(self) -> None:
        """A new prompt begins."""
        self._steps, self._work = MOST_STEPS, MOST_WORK

    def step(self, count: int = 1) -> None:
        self._steps -= count
        if self._steps < 0:
            raise BudgetSpent(f"it takes more than {MOST_STEPS:,} steps for one prompt")

    def make(self, characters: int) -> None:
        """To be called before so much text is made."""
        self._work -= characters
        if self._work < 0:
            raise BudgetSpent(f"it makes more than {MOST_TEXT // 2**20} MB of text for one prompt")

    def made(self, value: Any) -> Any:
        """A result, which counts."""
        self.make(size_of(value))
        return value

    def written(self, value: Any) -> None:
        """To be called before a value is made a text: what it holds counts, as often as it holds it."""
        waiting = [value]
        while waiting:
            held = waiting.pop()
            self.make(size_of(held) + ITEM)
            if isinstance(held, dict):
                waiting += [*held.keys(), *held.values()]
            elif isinstance(held, HOLDING):
                waiting += held
            elif isinstance(held, Namespace):
                waiting.append(object.__getattribute__(held, "_Namespace__attrs"))

    def cost(self, value: Any) -> int:
        """The same, and how much it was."""
        before = self._work
        self.written(value)
        return before - self._work

    def compared(self, value: Any) -> None:
        """To be called before a value is compared or hashed: what it holds counts, as often as it holds it."""
        if not isinstance(value, HOLDING):
            return
        self.make(len(value))
        within = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        for held in within:
            if isinstance(held, HOLDING) or (isinstance(held, str) and len(held) > LONG):
                self.written(held)

    def padded(self, form: str) -> None:
        """To be called before a field is filled. form: how it is to be, with its width in digits."""
        if DIGITS.search(form):
            raise BudgetSpent(TOO_WIDE)
        self.make(max(map(int, re.findall(r"\d+", form)), default=0))


TOO_WIDE = f"a field in it is more than {MOST_WIDTH:,} characters wide"


def size_of(value: Any) -> int:
    """About how many characters a value takes, without what it holds."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, int):
        return value.bit_length() // 3
    return ITEM * len(value) if isinstance(value, list | tuple | dict | set | frozenset) else 1


def check_product(budget: PromptBudget, operator: str, left: Any, right: Any) -> None:
    """Counts what * and ** make, before they make it."""
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
        if bits > MOST_BITS and abs(left) > 1:
            raise BudgetSpent(f"a number in it has more than {MOST_BITS:,} bits")
    elif operator == "*" and (isinstance(left, int) or isinstance(right, int)):
        times, repeated = (left, right) if isinstance(left, int) else (right, left)
        budget.make(max(times, 0) * size_of(repeated))


def check_growth(budget: PromptBudget, name: str, subject: Any, given: Sequence[Any]) -> None:
    """Counts what a method of a text, or a filter, will make, before it makes it."""
    if name in PADDING:
        widths = [value if isinstance(value, int) else len(value) for value in given if isinstance(value, int | str)]
        if (width := max(widths, default=0)) > MOST_WIDTH:
            raise BudgetSpent(TOO_WIDE)
        parts = subject.count("\n") + subject.count("\t") + 1 if name in PER_PART and isinstance(subject, str) else 1
        budget.make(width * parts)
    elif name == "replace" and len(given) > 1 and all(isinstance(value, str) for value in (subject, *given[:2])):
        budget.make(subject.count(given[0]) * len(given[1]))
    elif name in COMPARING:
        budget.compared(subject)
    elif name == PERCENT and isinstance(subject, str):
        _check_format(budget, subject, given)
    else:
        _check_inserted(budget, name, subject, given)
    if name in WRITTEN or (name in SORTING and isinstance(subject, HOLDING)):
        budget.written([subject, *given])
        if name == "join" and given:  # a method of what stands between the parts, or a filter of the parts
            between, parts = (subject, given[0]) if isinstance(subject, str) else (given[0], subject)
            budget.make(size_of(between) * _count(parts))


def _check_inserted(budget: PromptBudget, name: str, subject: Any, given: Sequence[Any]) -> None:
    """Counts texts that are put into another one, at places that only the method or filter knows."""
    if name == "translate" and isinstance(subject, str) and given and isinstance(given[0], Mapping):
        budget.make(len(subject) * max(map(size_of, given[0].values()), default=0))
    elif name in INSERTING and isinstance(subject, str):
        budget.make(len(subject) * sum(len(value) for value in given if isinstance(value, str) and len(value) > LONG))


def _count(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 1


def _check_format(budget: PromptBudget, form: str, given: Sequence[Any]) -> None:
    """Counts what a text with fields becomes: each may hold any of the values, and be padded."""
    values = [part for value in given for part in (value.values() if isinstance(value, dict) else [value])]
    fields = FIELD.findall(form)
    widths = [part for field in fields for part in field if part]
    if NESTED_NAME.search(form):  # of which no pattern finds the end
        widths = re.findall(r"\d+", form)
    widest = str(max((abs(value) for value in values if isinstance(value, int)), default=0))
    for width in widths:
        budget.padded(widest if width == "*" else width)
    largest = max((budget.cost(value) for value in values), default=0)
    budget.make(len(form) + (len(fields) - 1) * largest)
