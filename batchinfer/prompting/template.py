"""Row + template → prompt. Pure: the same row gives the same prompt, and nothing is read or written."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Container, Mapping, Sequence
from typing import Any

from jinja2 import Template, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError, UndefinedError
from jinja2.meta import find_undeclared_variables

from batchinfer.core.limits import TookTooLong, time_limit
from batchinfer.core.records import TEXT, Message
from batchinfer.errors import SpecError, counted, shortened
from batchinfer.prompting.growth import MOST_TEXT, BudgetSpent
from batchinfer.prompting.metered import Metered
from batchinfer.prompting.spec import Example, PromptSpec

ROW = "row"  # in a template: the row itself, for columns whose names are no variables, as in row["Product Name"]


class TemplateFault(Exception):
    """A row that does not fit the template."""


SECONDS = 1.0  # that one prompt may take, beside its budget of steps
MOST_LEVELS = 100  # of nesting in a template
MOST_SAID = 300  # characters of what Python says of a value, which it may repeat
GIVE_UP_AFTER = 5  # prompts that ask for too much, where none before them did not
# what Jinja raises for a template that cannot be compiled
BROKEN = (TemplateSyntaxError, SyntaxError, RecursionError, MemoryError, ValueError, OverflowError)


class PromptTemplate:
    """A job's template and few-shot examples, checked once, then filled for each row.

    columns: those that the template uses, in the order in which they first appear.
    """

    def __init__(
        self, spec: PromptSpec, examples: Sequence[Example], path: str, *, field: str = "prompt.template"
    ) -> None:
        """examples: those of the prompt, as `few_shot` gives them. Raises SpecError, naming `path` and the template's field.

        Nothing of the template is computed here: commands that fill none are not slowed down by one.
        """
        self._spec, self._examples, self._path, self._field = spec, examples, path, field
        self._environment = Metered()
        self._tree = self._parsed()
        if fault := _fault_of(self._tree, self._environment):
            raise SpecError(path, [f"{self._field}{fault}"])
        self._by_name = ROW in find_undeclared_variables(self._tree) and _rows_are_subscripted(self._tree)
        self.columns = _columns(self._tree, self._unknown(), by_name=self._by_name)
        if not self.columns:
            raise SpecError(
                path, [f"{field}: uses no column, so every row would be the same question: write {{{{ column }}}}."]
            )
        for number, example in enumerate(examples, 1):
            if missing := [name for name in self.columns if name not in example.input]:
                fault = f"the template needs a value that is not there: {missing[0]!r} is undefined."
                raise SpecError(path, [f"prompt.examples, number {number}: {fault}"])
        self._template: Template | None = None
        self._spent = 0  # prompts that took all of their budget, as long as no other was made
        self._few_shot: list[tuple[str, str]] = []

    def _parsed(self) -> nodes.Template:
        try:
            return self._environment.parse(self._spec.template)
        except BROKEN as exc:
            raise self._broken(exc) from exc

    def _unknown(self) -> set[str]:
        """The names that are columns: those that nothing in the template gives a value."""
        functions = {call.node.name for call in self._tree.find_all(nodes.Call) if isinstance(call.node, nodes.Name)}
        # A column may be called range, too: then nothing calls it.
        unknown = find_undeclared_variables(self._tree) | (self._environment.globals.keys() - functions)
        return unknown - ({ROW} if self._by_name else set())

    def _broken(self, exc: Exception) -> SpecError:
        """The error for a template that cannot be used at all."""
        if isinstance(exc, TemplateSyntaxError):
            return SpecError(self._path, [f"{self._field}, line {exc.lineno}: {exc.message}"])
        if isinstance(exc, RecursionError | SyntaxError | MemoryError):
            return SpecError(self._path, [f"{self._field}: {TOO_DEEP}"])
        return SpecError(self._path, [f"{self._field}: cannot be used: {exc}."])

    def compile(self) -> None:
        """Makes it ready to be filled, and fills in the examples. Raises SpecError."""
        if self._template is not None:
            return
        try:
            template = self._environment.from_string(self._environment.prepared(self._tree))
        except BROKEN as exc:
            raise self._broken(exc) from exc
        self._few_shot = []
        for number, example in enumerate(self._examples, 1):
            try:
                self._few_shot.append((self._fill(template, example.input), example.output))
            except TemplateFault as exc:
                raise SpecError(self._path, [f"prompt.examples, number {number}: {exc}"]) from exc
        self._template = template

    @property
    def roles(self) -> list[str]:
        """Those of the chat turns of every row."""
        first = ["system"] if self._spec.system else []
        return [*first, *["user", "assistant"] * len(self._examples), "user"]

    def messages(self, row: Mapping[str, Any]) -> tuple[Message, ...]:
        """The chat turns for a row, or one (TEXT, …) for plain completion. Raises TemplateFault.

        Raises SpecError where the template asks for too much of any row.
        """
        self.compile()
        assert self._template is not None
        question = self._fill(self._template, row)
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

    def _fill(self, template: Template, row: Mapping[str, Any]) -> str:
        self._environment.budget.refill()
        try:
            values = {name: row[name] for name in self.columns if name in row}
            with time_limit(SECONDS):
                text = template.render(values | {ROW: values} if self._by_name else values)
            size = len(text.encode())
        except UndefinedError as exc:
            raise TemplateFault(
                f"the template needs a value that is not there: {shortened(str(exc.message), MOST_SAID)}."
            ) from exc
        except SecurityError as exc:
            raise TemplateFault(f"the template may not do that: {shortened(str(exc), MOST_SAID)}.") from exc
        except (BudgetSpent, TookTooLong) as exc:
            self._spent += 1
            if self._spent == GIVE_UP_AFTER:
                raise SpecError(self._path, [f"{self._field}: asks for too much of each row so far: {exc}."]) from exc
            raise TemplateFault(f"the template asks for too much: {exc}.") from exc
        except UnicodeEncodeError as exc:
            raise TemplateFault(f"the prompt has {text[exc.start]!r}, which is not a character.") from exc
        except Exception as exc:  # a template calls methods of values, which may raise anything
            raise TemplateFault(
                f"the template could not be filled: {shortened(str(exc) or repr(exc), MOST_SAID)}."
            ) from exc
        if size > MOST_TEXT:
            raise TemplateFault(f"the prompt has {size / 2**20:.1f} MB; at most {MOST_TEXT // 2**20} MB can be asked.")
        self._spent = -sys.maxsize  # it is not the template that asks for too much, but some rows
        return text


TOO_DEEP = f"is nested too deeply: at most {MOST_LEVELS} levels are read."


def _fault_of(tree: nodes.Template, environment: Metered) -> str | None:
    """What is wrong with a template that can be parsed, as the rest of a sentence that begins with its name."""
    level, held = 0, list[nodes.Node]([tree])
    while held := [child for node in held for child in node.iter_child_nodes()]:
        level += 1
        if level > MOST_LEVELS:
            return f": {TOO_DEEP}"
    for kind, known, what in ((nodes.Filter, environment.filters, "filter"), (nodes.Test, environment.tests, "test")):
        for node in tree.find_all(kind):
            if node.name not in known:
                return f", line {node.lineno}: No {what} named {node.name!r}."
    if forbidden := _private_names(tree):
        return f": {forbidden} is an internal name of Python, which a template may not use."
    return None


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
        raise SpecError(path, [f"prompt.shots: is {shots}, but the job has only {counted(len(examples), 'example')}."])
    return list(examples[: int(shots)])
