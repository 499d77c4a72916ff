"""Row + template → prompt. Pure: the same row gives the same prompt, and nothing is read or written."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError, UndefinedError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from batchinfer.core.records import TEXT, Message
from batchinfer.errors import SpecError
from batchinfer.prompting.spec import Example, PromptSpec

ROW = "row"  # in a template: the row itself, for columns whose names are no variables, as in row["Product Name"]


class TemplateFault(Exception):
    """A row that does not fit the template."""


class PromptTemplate:
    """A job's template and few-shot examples, checked once, then filled for each row.

    columns: those that the template uses, in the order in which they first appear.
    """

    def __init__(self, spec: PromptSpec, examples: Sequence[Example], path: str) -> None:
        """examples: those of the prompt, as `few_shot` gives them. Raises SpecError, naming `path`."""
        self._spec = spec
        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, keep_trailing_newline=False, autoescape=False
        )
        # The same row must give the same prompt: nothing random, and no names that columns may have.
        environment.globals = {name: environment.globals[name] for name in ("range", "namespace")}
        del environment.filters["random"]
        try:
            tree = environment.parse(spec.template)
            self._template = environment.from_string(spec.template)
        except TemplateSyntaxError as exc:
            raise SpecError(path, [f"prompt.template, line {exc.lineno}: {exc.message}"]) from exc
        if forbidden := _private_names(tree):
            raise SpecError(
                path, [f"prompt.template: {forbidden} is an internal name of Python, which a template may not use."]
            )
        self._by_name = ROW in find_undeclared_variables(tree) and _rows_are_subscripted(tree)
        functions = {call.node.name for call in tree.find_all(nodes.Call) if isinstance(call.node, nodes.Name)}
        # A column may be called range, too: then nothing calls it.
        unknown = find_undeclared_variables(tree) | (environment.globals.keys() - functions)
        unknown -= {ROW} if self._by_name else set()
        self.columns = _columns(tree, unknown, by_name=self._by_name)
        if not self.columns:
            raise SpecError(
                path, ["prompt.template: uses no column, so every row would be the same question: write {{ column }}."]
            )
        self._few_shot: list[tuple[str, str]] = []
        for number, example in enumerate(examples, 1):
            if missing := [name for name in self.columns if name not in example.input]:
                fault = f"the template needs a value that is not there: {missing[0]!r} is undefined."
                raise SpecError(path, [f"prompt.examples, number {number}: {fault}"])
            try:
                self._few_shot.append((self._fill(example.input), example.output))
            except TemplateFault as exc:
                raise SpecError(path, [f"prompt.examples, number {number}: {exc}"]) from exc

    def messages(self, row: Mapping[str, Any]) -> tuple[Message, ...]:
        """The chat turns for a row, or one (TEXT, …) for plain completion. Raises TemplateFault."""
        question = self._fill(row)
        if self._spec.format == "completion":
            return ((TEXT, self._completion(question)),)
        turns: list[Message] = [("system", self._spec.system)] if self._spec.system else []
        for example, answer in self._few_shot:
            turns += [("user", example), ("assistant", answer)]
        return (*turns, ("user", question))

    def _completion(self, question: str) -> str:
        """The system text, a line for each example, and the open line. A space at its end is the answer's to write."""
        lines = [f"{example.rstrip(' ')} {answer}" for example, answer in self._few_shot]
        head = f"{self._spec.system}\n\n" if self._spec.system else ""
        return head + "\n".join([*lines, question.rstrip(" ")])

    def _fill(self, row: Mapping[str, Any]) -> str:
        try:
            values = {name: row[name] for name in self.columns if name in row}
            return self._template.render(values | {ROW: values} if self._by_name else values)
        except UndefinedError as exc:
            raise TemplateFault(f"the template needs a value that is not there: {exc.message}.") from exc
        except SecurityError as exc:
            raise TemplateFault(f"the template may not do that: {exc}.") from exc
        except Exception as exc:  # a template calls methods of values, which may raise anything
            raise TemplateFault(f"the template could not be filled: {str(exc) or repr(exc)}.") from exc


def _rows_are_subscripted(tree: nodes.Template) -> bool:
    """Whether `row` is always followed by a column's name: otherwise it is a column itself."""
    names = sum(node.name == ROW for node in tree.find_all(nodes.Name))
    return names == sum(_named(node) is not None for node in tree.find_all(nodes.Getitem))


def _named(node: nodes.Node) -> str | None:
    """The column that row["column"] names; None for anything else."""
    if isinstance(node, nodes.Getitem) and isinstance(node.node, nodes.Name) and node.node.name == ROW:
        return node.arg.value if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str) else None
    return None


def _columns(tree: nodes.Template, unknown: Container[str], *, by_name: bool) -> list[str]:
    """The columns, in the order in which they first appear. by_name: whether row["column"] is one."""
    found = []
    for node in tree.find_all((nodes.Name, nodes.Getitem)):
        if by_name and (name := _named(node)) is not None:
            found.append(name)
        elif isinstance(node, nodes.Name) and node.name in unknown:
            found.append(node.name)
    return list(dict.fromkeys(found))


def column_reference(name: str) -> str | None:
    """How a template writes a column: by its name, or as row["its name"]; None where neither will do."""
    for reference in (name, f"{ROW}[{json.dumps(name, ensure_ascii=False)}]"):
        try:
            if PromptTemplate(PromptSpec(template=f"{{{{ {reference} }}}}"), [], "").columns == [name]:
                return reference
        except SpecError:
            continue
    return None


def _private_names(tree: nodes.Template) -> str | None:
    """The first name in the template that is internal to Python."""
    for attribute in tree.find_all(nodes.Getattr):
        if attribute.attr.startswith("_"):
            return attribute.attr
    for constant in tree.find_all(nodes.Const):  # x["__class__"], x|attr("__class__")
        if isinstance(constant.value, str) and re.match("__[a-zA-Z]", constant.value):  # but not a gap, "____"
            return constant.value
    return None


def few_shot(examples: Sequence[Example], shots: int | str, path: str) -> list[Example]:
    """The first `shots` examples, or all. Raises SpecError if there are fewer."""
    if shots == "all":
        return list(examples)
    if int(shots) > len(examples):
        raise SpecError(path, [f"prompt.shots: is {shots}, but there are only {len(examples)} examples."])
    return list(examples[: int(shots)])
