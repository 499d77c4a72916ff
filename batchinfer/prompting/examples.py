"""Few-shot examples in the very form that the engine makes an answer take. Pure.

An example in another form, such as JSON with spaces between its items, pushes a model off the pattern that it was shown: the
constraint forbids the space that it would write next, and it goes on with something else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from batchinfer.core.keys import canonical_json
from batchinfer.core.limits import TookTooLong, time_limit
from batchinfer.errors import shortened
from batchinfer.prompting.output import OutputSpec
from batchinfer.prompting.schema import referred, validator_of
from batchinfer.prompting.spec import Example

SECONDS = 1.0  # that one example may take
MOST_EXACT = 2**53  # whole numbers beyond are no longer told apart as floats


class BadExample(Exception):
    """An example that no answer can look like: the rest of a sentence that begins with its output."""


def as_written(examples: Sequence[Example], output: OutputSpec) -> tuple[list[Example], list[tuple[int, str]]]:
    """The examples as the model could write them, and (number from 1, fault) of those that it could not."""
    written, faults = list[Example](), list[tuple[int, str]]()
    for number, example in enumerate(examples, 1):
        try:
            written.append(example.model_copy(update={"output": written_answer(example.output, output)}))
        except BadExample as exc:
            faults.append((number, f"prompt.examples, number {number}: output {exc}."))
    return written, faults


def written_answer(text: str, output: OutputSpec) -> str:
    """One answer in the form that the engine makes it take. Raises BadExample."""
    try:
        with time_limit(SECONDS):
            if output.schema_ is not None:
                return _compact(text, output.schema_)
            if output.choices is not None and text not in output.choices:
                raise BadExample(
                    f"is {shortened(text)}, which is not one of output.choices: write {_one_of(text, output.choices)}"
                )
            if output.pattern is not None and re.fullmatch(output.pattern, text) is None:
                raise BadExample(f"is {shortened(text)}, which does not match output.pattern")
    except TookTooLong as exc:
        raise BadExample("takes too long to check: output.schema or output.pattern is too complex for it") from exc
    return text


def _one_of(text: str, choices: Sequence[str]) -> str:
    """The choice that was meant, or all that there are."""
    alike = [choice for choice in choices if choice.casefold() == text.strip().casefold()]
    return alike[0] if alike else "one of " + ", ".join(choices)


def _compact(text: str, schema: dict[str, Any]) -> str:
    """JSON without white space, with properties in the schema's order, as a grammar that is made of the schema has them."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as exc:
        raise BadExample(f"is not JSON: {exc}") from exc
    validator = validator_of(schema)
    try:
        fault = next(iter(validator.iter_errors(value)), None)
        if fault is not None:
            place = fault.json_path.removeprefix("$").lstrip(".") or "the whole"
            raise BadExample(f"breaks output.schema at {place}: {fault.message[:200].rstrip('.')}")
        ordered = _Order(validator, schema).of(_whole(value), schema)
    except RecursionError as exc:
        raise BadExample("is nested too deeply for output.schema") from exc
    return json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))


def _whole(value: Any) -> Any:
    """A value with 1 for 1.0, which a grammar takes where a number must be whole, and where it need not be."""
    if isinstance(value, dict):
        return {name: _whole(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_whole(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < MOST_EXACT else value


class _Order:
    """Puts values into the order of a schema that they obey."""

    def __init__(self, validator: Any, root: dict[str, Any]) -> None:
        self._validator, self._root = validator, root

    def of(self, value: Any, schema: Any) -> Any:
        """A value whose objects have their properties in the schema's order."""
        for part in self._meant(value, schema):
            value = self._in_order(value, part)
        return value

    def _meant(self, value: Any, schema: Any) -> list[Mapping[str, Any]]:
        """The schemas that judge a value, the outermost last: it has the last word on the order."""
        if not isinstance(schema, Mapping):
            return []
        found = list[Mapping[str, Any]]()
        if isinstance(reference := schema.get("$ref"), str):
            found += self._meant(value, referred(self._root, reference))
        for keyword in ("anyOf", "oneOf"):
            if fits := [
                branch for branch in schema.get(keyword, ()) if self._validator.evolve(schema=branch).is_valid(value)
            ]:
                found += self._meant(value, max(fits, key=lambda branch: _names_known(value, branch)))
        for branch in schema.get("allOf", ()):
            found += self._meant(value, branch)
        return [*found, schema]

    def _in_order(self, value: Any, schema: Mapping[str, Any]) -> Any:
        listed = [schema["const"]] if "const" in schema else schema.get("enum", ())
        for same in map(_whole, listed):
            if canonical_json(same) == canonical_json(value):
                return same
        if isinstance(value, dict):
            parts = schema.get("properties", {})
            names = [*(name for name in parts if name in value), *(name for name in value if name not in parts)]
            return {name: self.of(value[name], self._property(name, schema)) for name in names}
        if isinstance(value, list):
            first = schema.get("prefixItems", ())
            others = [schema.get("items")] * (len(value) - len(first))
            return [self.of(item, part) for item, part in zip(value, [*first, *others], strict=False)]
        return value

    def _property(self, name: str, schema: Mapping[str, Any]) -> Any:
        """The schema of a property."""
        if name in schema.get("properties", {}):
            return schema["properties"][name]
        patterns = schema.get("patternProperties", {})
        return next(
            (part for pattern, part in patterns.items() if re.search(pattern, name)), schema.get("additionalProperties")
        )


def _names_known(value: Any, schema: Any) -> int:
    """How many of a value's properties a schema names: of several that fit, a grammar holds to the one that names them."""
    return (
        len(value.keys() & schema.get("properties", {}))
        if isinstance(value, dict) and isinstance(schema, Mapping)
        else 0
    )
