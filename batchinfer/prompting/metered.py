"""Jinja2 for prompts: plain text, and a budget of steps and of text for each prompt, as a template can ask for years of work. Pure."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from jinja2 import StrictUndefined, nodes, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MOST_TEXT = 2**24  # bytes of one prompt
MOST_STEPS = 200_000  # turns of loops, calls and filters for one prompt
MOST_WORK = 16 * MOST_TEXT  # characters that are made on the way to one prompt
MOST_BITS = 100_000  # of an integer that is multiplied
MOST_WIDTH = 1_000_000  # of a field that is padded
MOST_INDENT = 100  # spaces
ITEM = 16  # characters that an item of a list counts for

EACH, JOINED = " each", " joined"  # filters that no template can name
PADDING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "indent", "batch", "slice", "to_bytes"})
PER_PART = frozenset({"expandtabs", "indent"})  # of these each part of the text grows, not the whole
WRITTEN = frozenset(
    {"join", "string", "tojson", "pprint", "format", "format_map", "escape", "e", "forceescape", "xmlattr"}
)
DIGITS = re.compile(r"\d{7,}")


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
        self.make(_size(value))
        return value

    def written(self, value: Any) -> None:
        """To be called before a value is made a text: what it holds counts, as often as it holds it."""
        waiting = [value]
        while waiting:
            held = waiting.pop()
            self.make(_size(held) + ITEM)
            if isinstance(held, dict):
                waiting += [*held.keys(), *held.values()]
            elif isinstance(held, list | tuple | set | frozenset):
                waiting += held


def _size(value: Any) -> int:
    """About how many characters a value takes, without what it holds."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, int):
        return value.bit_length() // 3
    return ITEM * len(value) if isinstance(value, list | tuple | dict | set | frozenset) else 1


class Metered(ImmutableSandboxedEnvironment):
    """An environment whose templates do no work before they are filled, and a bounded amount then.

    budget: of the prompt that is being made.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        self.budget = PromptBudget()
        super().__init__(
            undefined=StrictUndefined, keep_trailing_newline=False, autoescape=False, optimized=False,
            finalize=self._written_out,
        )  # fmt: skip
        # The same row must give the same prompt: nothing random, and no names that columns may have.
        self.globals = {name: self.globals[name] for name in ("range", "namespace")}
        del self.filters["random"]
        self.filters["tojson"] = functools.partial(_tojson, self.budget)
        self.filters = {name: self._metered(name, function) for name, function in dict[str, Any](self.filters).items()}
        self.tests = {name: self._metered(name, function) for name, function in dict[str, Any](self.tests).items()}
        self.filters |= {EACH: self._each, JOINED: self._joined}

    def prepared(self, tree: nodes.Template) -> nodes.Template:
        """A parsed template, with what counts its work."""
        found: nodes.Template = _Counting().visit(tree)
        return found

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.budget.step()
        if operator in ("*", "**"):
            _check_product(self.budget, operator, left, right)
        elif operator == "%" and isinstance(left, str):
            _check_format(self.budget, left, [right])
        elif operator == "+":
            self.budget.make(_size(left) + _size(right))
        return self.budget.made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805, PYI063 - as Jinja has it
        given = [*args, *kwargs.values()]
        __self.budget.step(1 + sum(len(value) for value in given if isinstance(value, list | tuple | dict | range)))
        method = getattr(__obj, "__wrapped__", __obj)
        if isinstance(subject := getattr(method, "__self__", None), str | bytes | int):
            _check_growth(__self.budget, method.__name__, subject, given)
        return __self.budget.made(super().call(__context, __obj, *args, **kwargs))

    def _metered(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter or test that counts. The first argument may be Jinja's context."""
        budget, first = self.budget, int(hasattr(function, "jinja_pass_arg"))

        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            budget.step()
            if len(args) > first:
                _check_growth(budget, name, args[first], [*args[first + 1 :], *kwargs.values()])
            return budget.made(function(*args, **kwargs))

        return counted

    def _each(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.budget.step()
            yield item

    def _joined(self, items: Sequence[Any]) -> str:
        self.budget.step()
        self.budget.written(items)
        return "".join(map(str, items))

    @pass_context
    def _written_out(self, _: Context, value: Any) -> Any:
        """What stands in a prompt for a value: its text."""
        self.budget.written(value)
        return value if isinstance(value, str) else str(value)


class _Counting(NodeTransformer):
    """Puts a counter into each loop, and makes text of the template's own count as that of values does."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - Jinja's name
        self.generic_visit(node)
        node.iter = _filtered(node.iter, EACH)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), JOINED)

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:  # noqa: N802
        return nodes.Const(node.data, lineno=node.lineno)


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _tojson(budget: PromptBudget, value: Any, indent: int | None = None) -> str:
    """Jinja's, but for text and not for HTML: nothing is escaped that JSON does not want escaped."""
    if indent is None:
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    parts = list[str]()
    for part in json.JSONEncoder(ensure_ascii=False, sort_keys=True, indent=min(indent, MOST_INDENT)).iterencode(value):
        budget.make(len(part))  # what indents it grows with its depth
        parts.append(part)
    return "".join(parts)


def _check_product(budget: PromptBudget, operator: str, left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
        if bits > MOST_BITS and abs(left) > 1:
            raise BudgetSpent(f"a number in it has more than {MOST_BITS:,} bits")
    elif operator == "*" and (isinstance(left, int) or isinstance(right, int)):
        times, repeated = (left, right) if isinstance(left, int) else (right, left)
        budget.make(max(times, 0) * _size(repeated))


def _check_growth(budget: PromptBudget, name: str, subject: Any, given: Sequence[Any]) -> None:
    """Counts what a method of a text, or a filter, will make, before it makes it."""
    if name in PADDING:
        widths = [value if isinstance(value, int) else len(value) for value in given if isinstance(value, int | str)]
        if (width := max(widths, default=0)) > MOST_WIDTH:
            raise BudgetSpent(f"a field in it is more than {MOST_WIDTH:,} characters wide")
        parts = subject.count("\n") + subject.count("\t") + 1 if name in PER_PART and isinstance(subject, str) else 1
        budget.make(width * parts)
    elif name == "replace" and len(given) > 1 and all(isinstance(value, str) for value in (subject, *given[:2])):
        budget.make(subject.count(given[0]) * len(given[1]))
    elif name in ("format", "format_map") and isinstance(subject, str):
        _check_format(budget, subject, given)
    if name in WRITTEN:
        budget.written([subject, *given])
        if name == "join" and given:  # a method of what stands between the parts, or a filter of the parts
            between, parts = (subject, given[0]) if isinstance(subject, str) else (given[0], subject)
            budget.make(_size(between) * _count(parts))


def _count(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 1


def _check_format(budget: PromptBudget, form: str, given: Sequence[Any]) -> None:
    """Counts what a text with gaps becomes: each may hold any value, and be padded."""
    values = [part for value in given for part in (value if isinstance(value, tuple | list) else [value])]
    takes_width = "*" in form or re.search(r"\{[^}]*\{", form) is not None
    widest = max((value for value in values if isinstance(value, int)), default=0) if takes_width else 0
    if DIGITS.search(form) or widest > MOST_WIDTH:
        raise BudgetSpent(f"a field in it is more than {MOST_WIDTH:,} characters wide")
    largest = max((_size(value) for value in values), default=0)
    budget.make(len(form) + (form.count("%") + form.count("{")) * (largest + widest))
