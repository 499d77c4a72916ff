"""Answers and schemas that are out to break the reading: each costs its row, and no more."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.core.records import Failure, Prediction
from batchinfer.prompting import parse
from batchinfer.prompting.output import OutputSpec
from batchinfer.prompting.parse import MOST_LEVELS, Parser
from tests.prompting.answers import failed, generation, json_values, read

TREE = {"type": "object", "properties": {"next": {"$ref": "#"}}}
ENDLESS = "a" * 60 + "!"


def chain(levels: int) -> str:
    """A JSON text of so many objects within one another."""
    return '{"next":' * (levels - 1) + "{}" + "}" * (levels - 1)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little time for each answer."""
    monkeypatch.setattr(parse, "SECONDS", 0.05)


@pytest.mark.parametrize("levels", [MOST_LEVELS + 1, 150, 400, 900])
@pytest.mark.parametrize("output", [{"schema": TREE}, {"schema": {}}, {"schema": {}, "steps": ["strip", "dedupe"]}])
def test_a_deep_answer_fails_alone(levels: int, output: dict[str, Any]) -> None:
    """An answer that is nested more deeply than what comes after it could bear is a failure that says so."""
    failure = failed(chain(levels), type="json", **output)
    assert (failure.reason, failure.detail) == ("too_deep", "The answer is nested more than 100 levels deep.")


@pytest.mark.parametrize("schema", [TREE, {}])
def test_an_answer_at_the_limit_is_read(schema: dict[str, Any]) -> None:
    """As many levels as are allowed are read, also by a schema that refers to itself."""
    text = chain(MOST_LEVELS)
    assert read(text, type="json", schema=schema, steps=["strip", "dedupe"]) == json.loads(text)


@pytest.mark.parametrize("schema", [{"multipleOf": 0.5}, {"items": {"multipleOf": 0.1}}])
@pytest.mark.parametrize("digits", [400, 4299])
def test_a_number_that_no_check_can_take_fails_alone(schema: dict[str, Any], digits: int) -> None:
    """What an error of the check itself says is the row's failure."""
    number = "9" * digits
    failure = failed(f"[{number}]" if "items" in schema else number, type="json", schema=schema)
    assert failure.reason == "unreadable"
    assert failure.detail.startswith("The answer cannot be checked: ")


@pytest.mark.parametrize(
    ("text", "output"),
    [
        (ENDLESS, {"type": "regex", "pattern": "(a+)+"}),
        (ENDLESS, {"steps": [{"drop": "(a|a)+"}]}),
        (json.dumps([ENDLESS]), {"type": "json", "schema": {}, "steps": [{"drop": "(a+)+"}]}),
        (json.dumps(ENDLESS), {"type": "json", "schema": {"pattern": "^(a+)+$"}}),
        (json.dumps({ENDLESS: 1}), {"type": "json", "schema": {"patternProperties": {"^(a+)+$": {}}}}),
        (json.dumps("a" * 100_000), {"type": "json", "schema": {"pattern": "a*b"}}),
    ],
)
@pytest.mark.usefixtures("hurried")
@pytest.mark.long
def test_a_pattern_that_never_ends_fails_alone(text: str, output: dict[str, Any]) -> None:
    """Wherever the pattern stands, the row fails when its time is up, and the next answer is read."""
    parser = Parser(OutputSpec.model_validate(output))
    result = parser(generation(text), {})
    assert isinstance(result, Failure)
    assert (result.stage, result.reason) == ("parse", "too_slow")
    good = '["aaa!"]' if output.get("type") == "json" else "aaa"
    if output.get("type"):
        assert isinstance(parser(generation(good), {}), Prediction)


@pytest.mark.usefixtures("hurried")
def test_a_schema_that_takes_years_fails_alone() -> None:
    """Schemas that refer to others twice, level by level, come to an end in theory only."""
    levels = {f"l{n}": {"allOf": [{"$ref": f"#/$defs/l{n + 1}"}, {"$ref": f"#/$defs/l{n + 1}"}]} for n in range(40)}
    schema = {"$ref": "#/$defs/l0", "$defs": levels | {"l40": {"type": "string"}}}
    assert failed('"a"', type="json", schema=schema).reason == "too_slow"


def test_a_long_text_is_searched_to_its_end() -> None:
    """A pattern is found in a long text where it is in a short one, at its end and after a line's start, too."""
    schema = {"pattern": "(?m)^b$|c\\Z"}
    for length in (10, 20_000):
        assert read(json.dumps("a" * length + "\nb\n"), type="json", schema=schema)
        assert read(json.dumps("a" * length + "c"), type="json", schema=schema)
        assert failed(json.dumps("a" * length + "b"), type="json", schema=schema).reason == "not_in_schema"


def test_a_step_that_raises_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a step raises is a failure of its row."""

    def broken(_value: Any, _row: Any) -> Any:
        raise KeyError("lost")

    parser = Parser(OutputSpec())
    monkeypatch.setattr(parser, "_steps", [broken])
    result = parser(generation("a"), {})
    assert isinstance(result, Failure)
    assert (result.reason, result.detail) == ("unreadable", "The answer cannot be checked: 'lost'.")


@pytest.mark.parametrize(
    ("output", "value"),
    [
        ({"type": "json", "schema": {"multipleOf": 0.5}}, int("9" * 401)),
        ({"type": "json", "schema": {}}, json.loads(chain(400))),
        ({"type": "regex", "pattern": "(a+)+"}, ENDLESS),
    ],
)
@pytest.mark.usefixtures("hurried")
def test_imported_values_are_refused_as_answers_are(output: dict[str, Any], value: Any) -> None:
    """What people import is checked within the same limits, with a sentence."""
    fault = Parser(OutputSpec.model_validate(output)).fault_of(value, {})
    assert fault is not None
    assert fault.startswith(("cannot be checked: ", "is nested more than "))


schemas = st.recursive(
    st.sampled_from([True, {}, {"$ref": "#"}, {"type": "string"}, {"multipleOf": 0.5}, {"pattern": "(a+)+$"}]),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"allOf": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2)}),
        st.fixed_dictionaries({"items": inner}),
        st.fixed_dictionaries({"not": inner, "minimum": st.integers()}),
    ),
    max_leaves=6,
)


@given(schemas, json_values)
def test_no_schema_and_no_answer_end_a_run(schema: Any, value: Any) -> None:
    """A schema is refused with a sentence, or reading any answer by it gives a prediction or a failure."""
    try:
        spec = OutputSpec.model_validate({"type": "json", "schema": schema if isinstance(schema, dict) else {}})
    except ValueError:
        return
    assert isinstance(Parser(spec)(generation(json.dumps(value)), {}), Prediction | Failure)
