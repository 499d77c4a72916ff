"""Few-shot examples in the form that answers are made to take."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchinfer.prompting.examples import BadExample, as_written, written_answer
from batchinfer.prompting.output import OutputSpec
from batchinfer.prompting.spec import Example

NAMES: dict[str, Any] = {
    "type": "object",
    "properties": {"names": {"type": "array", "items": {"type": "string"}, "maxItems": 3}, "n": {"type": "integer"}},
    "required": ["names"],
}


def written(answer: str, **output: Any) -> str:
    return written_answer(answer, OutputSpec.model_validate(output))


@pytest.mark.parametrize(
    ("schema", "text", "shown"),
    [
        (NAMES, '{"names": ["a", "b"]}', '{"names":["a","b"]}'),
        (NAMES, '{ "n": 2.0,\n "names": ["\\u00e9 b"] }', '{"names":["é b"],"n":2}'),
        ({"enum": [{"b": 1, "a": 2}]}, '{"a": 2, "b": 1.0}', '{"b":1,"a":2}'),
        ({"enum": [True, 1]}, "1", "1"),
        ({"anyOf": [{"type": "array"}, NAMES]}, '{"n": 1, "names": []}', '{"names":[],"n":1}'),
        ({"$ref": "#/$defs/x", "$defs": {"x": NAMES}}, '{"n": 1, "names": []}', '{"names":[],"n":1}'),
        ({"allOf": [NAMES]}, '{"n": 1, "names": [], "z": 0}', '{"names":[],"n":1,"z":0}'),
        ({"additionalProperties": NAMES}, '{"x": {"n": 1, "names": []}}', '{"x":{"names":[],"n":1}}'),
        ({"patternProperties": {"^x": NAMES}}, '{"x": {"n": 1, "names": []}}', '{"x":{"names":[],"n":1}}'),
        ({"prefixItems": [NAMES], "items": True}, '[{"n": 1, "names": []}, 1.5]', '[{"names":[],"n":1},1.5]'),
    ],
)
def test_json_is_written_as_its_schema_has_it(schema: dict[str, Any], text: str, shown: str) -> None:
    """No white space, properties in the schema's order, characters as themselves, whole numbers without a point."""
    assert written(text, type="json", schema=schema) == shown
    assert written(shown, type="json", schema=schema) == shown


@pytest.mark.parametrize(
    ("output", "text", "fault"),
    [
        ({"type": "json", "schema": NAMES}, "[a]", "is not JSON: Expecting value"),
        ({"type": "json", "schema": {}}, "NaN", "is not JSON: Out of range"),
        ({"type": "json", "schema": NAMES}, '{"names": [1]}', "breaks output.schema at names[0]: 1 is not of type"),
        ({"type": "json", "schema": NAMES}, "[]", "breaks output.schema at the whole: [] is not of type"),
        ({"type": "choice", "choices": ["Yes", "No"]}, "yes", "is not one of output.choices: write Yes"),
        ({"type": "choice", "choices": ["Yes", "No"]}, "Perhaps", "is not one of output.choices: write one of Yes, No"),
        ({"type": "regex", "pattern": "[0-9]+"}, "12 ", "does not match output.pattern"),
    ],
)
def test_what_no_answer_can_look_like_is_refused(output: dict[str, Any], text: str, fault: str) -> None:
    """The rest of a sentence says what is wrong, and all such examples are told with their numbers."""
    with pytest.raises(BadExample) as caught:
        written(text, **output)
    assert fault in str(caught.value)
    example = Example(input={}, output=text)
    _, faults = as_written([example, example], OutputSpec.model_validate(output))
    assert faults == [(number, f"prompt.examples, number {number}: output {caught.value}.") for number in (1, 2)]


def test_other_answers_are_shown_as_they_stand() -> None:
    """A text, a choice, what a pattern matches, and what goes before a text whose likelihood is asked for."""
    assert written(" any [1, 2] ") == " any [1, 2] "
    assert written("Yes", type="choice", choices=["Yes", "No"]) == "Yes"
    assert written("12", type="regex", pattern="[0-9]+") == "12"
    assert written("x, y", type="likelihood", text="{{ term }}") == "x, y"


def test_a_deep_answer_is_refused() -> None:
    """Nesting beyond what can be walked is a fault, and no crash."""
    schema = {"$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}, "$ref": "#/$defs/tree"}
    with pytest.raises(BadExample, match=r"nested too deeply|not JSON"):
        written("[" * 900 + "]" * 900, type="json", schema=schema)
    assert json.loads(written("[[], [[]]]", type="json", schema=schema)) == [[], [[]]]
