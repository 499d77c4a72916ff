"""Jinja2 for prompts: plain text, and a bounded amount of work for each prompt, as a template can ask for years of it. Pure."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jinja2 import StrictUndefined, nodes, pass_context
from jinja2.filters import make_attrgetter
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEscapeFormatter, SandboxedFormatter
from jinja2.visitor import NodeTransformer
from markupsafe import Markup

from batchinfer.prompting.growth import (
    COMPARING,
    MOST_INDENT,
    PERCENT,
    SORTING,
    PromptBudget,
    check_growth,
    check_product,
    size_of,
)

EACH, JOINED, COMPARED, SLICED = " each", " joined", " compared", " sliced"  # filters that no template can name


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
        self.filters |= {"tojson": functools.partial(_tojson, self.budget), "sum": self._sum}
        self.filters = {name: self._metered(name, function) for name, function in dict[str, Any](self.filters).items()}
        self.tests = {name: self._metered(name, function) for name, function in dict[str, Any](self.tests).items()}
        self.filters |= {EACH: self._each, JOINED: self._joined, COMPARED: self._compared, SLICED: self._sliced}

    def prepared(self, tree: nodes.Template) -> nodes.Template:
        """A parsed template, with what counts its work."""
        found: nodes.Template = _Counting().visit(tree)
        return found

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.budget.step()
        if operator in ("*", "**"):
            check_product(self.budget, operator, left, right)
        elif operator == "%" and isinstance(left, str):
            check_growth(self.budget, PERCENT, left, right if isinstance(right, tuple) else [right])
        elif operator == "+":
            self.budget.make(size_of(left) + size_of(right))
        return self.budget.made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805, PYI063 - as Jinja has it
        given = [*args, *kwargs.values()]
        __self.budget.step(1 + sum(len(value) for value in given if isinstance(value, list | tuple | dict | range)))
        method = getattr(__obj, "__wrapped__", __obj)
        if isinstance(subject := getattr(method, "__self__", None), str | bytes | int):
            check_growth(__self.budget, method.__name__, subject, given)
        elif getattr(method, "__name__", None) in COMPARING:
            for value in (subject, *given):
                __self.budget.compared(value)
        return __self.budget.made(super().call(__context, __obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """The method format of a text, or format_map, with each field counted before it is filled."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        text = value.__self__
        made: type[str] = type(text)
        formatter = _EscapedFields(self, escape=text.escape) if isinstance(text, Markup) else _Fields(self)

        def fill(*args: Any, **kwargs: Any) -> str:
            if value.__name__ == "format":
                return made(formatter.vformat(text, args, kwargs))
            if len(args) == 1 and not kwargs and isinstance(args[0], Mapping):
                return made(formatter.vformat(text, (), args[0]))
            return wrapped(*args, **kwargs)  # which says what is wrong

        return functools.update_wrapper(fill, value)

    def _metered(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter or test that counts. The first argument may be Jinja's context."""
        budget, first = self.budget, int(hasattr(function, "jinja_pass_arg"))
        does = PERCENT if name == "format" else name

        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            budget.step()
            if len(args) > first:
                if name in SORTING and isinstance(args[first], Iterator):
                    args = (*args[:first], list(args[first]), *args[first + 1 :])
                given = [*args[first + 1 :], *kwargs.values()]
                for value in given:  # a name, of a filter or an attribute, is hashed
                    budget.compared(value)
                check_growth(budget, does, args[first], given)
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

    def _compared(self, value: Any) -> Any:
        self.budget.compared(value)
        return value

    def _sliced(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        self.budget.step()
        return self.budget.made(value[start:stop:step])

    def _sum(self, items: Iterable[Any], attribute: str | int | None = None, start: Any = 0) -> Any:
        """Jinja's, but what is made on the way counts: the sum of lists copies each one again and again."""
        total = start
        for item in items if attribute is None else map(make_attrgetter(self, attribute), items):
            self.budget.make(size_of(total) + size_of(item))
            total = total + item
        return total

    @pass_context
    def _written_out(self, _: Context, value: Any) -> Any:
        """What stands in a prompt for a value: its text."""
        self.budget.written(value)
        return value if isinstance(value, str) else str(value)


class _Fields(SandboxedFormatter):
    """Fills the fields of a text, and counts what each becomes before it is made."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        value, first = super().get_field(field_name, args, kwargs)
        self._env.budget.written(value)  # type: ignore[attr-defined]
        return value, first

    def format_field(self, value: Any, format_spec: str) -> str:
        self._env.budget.padded(format_spec)  # type: ignore[attr-defined]
        return str(super().format_field(value, format_spec))


class _EscapedFields(_Fields, SandboxedEscapeFormatter):
    """The same for what counts as HTML."""


class _Counting(NodeTransformer):
    """Puts a counter into each loop, and makes text of the template's own count as that of values does."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - Jinja's name
        self.generic_visit(node)
        node.iter = _filtered(node.iter, EACH)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _compared(node.expr)
        for operand in node.ops:
            operand.expr = _compared(operand.expr)
        return node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        for pair in node.items:
            pair.key = _compared(pair.key)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            parts = (node.arg.start, node.arg.stop, node.arg.step)
            return _filtered(node.node, SLICED, *(part or nodes.Const(None, lineno=node.lineno) for part in parts))
        node.arg = _compared(node.arg)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), JOINED)

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:  # noqa: N802
        return nodes.Const(node.data, lineno=node.lineno)


def _filtered(node: Any, name: str, *given: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(given), [], None, None, lineno=node.lineno)


def _compared(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _filtered(node, COMPARED)


def _tojson(budget: PromptBudget, value: Any, indent: int | None = None) -> str:
    """Jinja's, but for text and not for HTML: nothing is escaped that JSON does not want escaped."""
    if indent is None:
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    parts = list[str]()
    for part in json.JSONEncoder(ensure_ascii=False, sort_keys=True, indent=min(indent, MOST_INDENT)).iterencode(value):
        budget.make(len(part))  # what indents it grows with its depth
        parts.append(part)
    return "".join(parts)
