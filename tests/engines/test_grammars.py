"""What vLLM can hold a model to, found without a model."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from threading import Timer
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from batchinfer.engines import grammars
from batchinfer.engines.grammars import Constraint, SchemaPath
from batchinfer.prompting.examples import written_answer
from batchinfer.prompting.output import OutputSpec
from tests.tiny import ROOT

pytestmark = pytest.mark.skipif(importlib.util.find_spec("xgrammar") is None, reason="needs xgrammar, as vLLM has it")
Followed = Callable[..., list[Constraint]]


# As grammars.main, for one line of values after the other: a process takes half a second to load xgrammar.
PROGRAM = """
import io, sys
from batchinfer.engines import grammars
for line in iter(sys.stdin.readline, ""):
    sys.stdin, lines = io.StringIO(line), sys.stdin
    grammars.main()
    print(flush=True)
    sys.stdin = lines
"""
SECONDS = 100


@pytest.fixture(scope="module")
def process() -> Iterator[subprocess.Popen[str]]:
    """A process that says what is followed."""
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as asked:
        yield asked


@pytest.fixture(scope="module")
def followed(process: subprocess.Popen[str]) -> Followed:
    """What is said of many values, each with its kind and perhaps texts, by one process."""

    def ask(*asked_for: tuple[Any, ...]) -> list[Constraint]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(asked_for) + "\n")
        process.stdin.flush()
        late = Timer(SECONDS, process.kill)
        late.start()
        answer = json.loads(process.stdout.readline())
        late.cancel()
        return [
            Constraint(
                found["value"], tuple(map(tuple, found["left_out"])), found["refusal"], tuple(found["unwritable"])
            )
            for found in answer
        ]

    return ask


TEXT: dict[str, Any] = {"type": "string", "pattern": "^[A-Z]+$", "maxLength": 5}
LEFT_OUT: dict[str, tuple[dict[str, Any], tuple[SchemaPath, ...]]] = {
    "all is followed": ({"type": "array", "items": {"type": "string", "maxLength": 5}, "minItems": 1}, ()),
    "pattern beside maxLength": (TEXT, (("maxLength",),)),
    "pattern beside both lengths": (TEXT | {"minLength": 1}, (("minLength",), ("maxLength",))),
    "format beside maxLength": ({"type": "string", "format": "date", "maxLength": 10}, (("format",),)),
    "a format of its own": ({"type": "string", "format": "isbn"}, (("format",),)),
    "unique items": ({"type": "array", "uniqueItems": True}, (("uniqueItems",),)),
    "items that are contained": (
        {"type": "array", "contains": {}, "minContains": 2},
        (("minContains",), ("contains",)),
    ),
    "multipleOf": ({"type": "integer", "multipleOf": 5}, (("multipleOf",),)),
    "several allOf": ({"allOf": [{"type": "string"}, {"enum": ["a"]}]}, (("allOf",),)),
    "deep within, and twice": (
        {"type": "object", "properties": {"maxLength": TEXT, "b": {"anyOf": [TEXT, {"type": "null"}]}}},
        (("properties", "maxLength", "maxLength"), ("properties", "b", "anyOf", 0, "maxLength")),
    ),
    "a definition": (
        {"$ref": "#/$defs/tags", "$defs": {"tags": {"type": "array", "uniqueItems": True}}},
        (("$defs", "tags", "uniqueItems"),),
    ),
    "a pattern with a word's edge": ({"type": "string", "pattern": r"\ba"}, (("pattern",),)),
    "a pattern that is misread": ({"type": "string", "pattern": r"\Aa"}, (("pattern",),)),
    "a look-ahead in a name": ({"type": "object", "patternProperties": {"^(?!a)": {}}}, (("patternProperties",),)),
}
REFUSED: dict[str, tuple[str, Any, str]] = {
    "nothing fits": ("json", {"enum": []}, "enum array must not be empty"),
    "too deep": ("json", json.loads('{"items": ' * 70 + "{}" + "}" * 70), "nested too deeply"),
    "a flag": ("regex", "(?i)yes|no", "Group modifier flag"),
    "a look-ahead": ("regex", "(?=a)a", "Lookahead"),
    "a word's edge": ("regex", r"\bno\b", "Word boundary"),
    "the same again": ("regex", r"(a)\1", "Backreference"),
    "start": ("regex", r"x|\Ayes", r"has \A, which vLLM takes for a letter"),
    "end": ("regex", r"[\\a]\Z", r"has \Z, which vLLM takes for a letter"),
    "octal": ("regex", r"\060", r"has \060, which vLLM reads otherwise"),
    "a bracket first in a set": ("regex", "[^]a]", "which vLLM reads otherwise"),
    "NUL": ("regex", "a\0", "NUL"),
}


def test_what_cannot_be_followed_is_left_out_or_refused(followed: Followed) -> None:
    """As few keywords are left out as needed; what says the kind of value is not, and a pattern is refused with a reason."""
    found = followed(
        *(("json", schema) for schema, _ in LEFT_OUT.values()),
        *((kind, value) for kind, value, _ in REFUSED.values()),
        *(("regex", pattern) for pattern in ("yes|no", r"\\A[[]\[\]]", r"\d{4}-\d\d", "[a-z]+(, [a-z]+){0,5}")),
    )
    for (name, (_, places)), each in zip(LEFT_OUT.items(), found, strict=False):
        assert (each.left_out, each.refusal) == (places, None), name
    found = found[len(LEFT_OUT) :]
    for (name, (_, value, reason)), each in zip(REFUSED.items(), found, strict=False):
        assert each.refusal is not None, name
        assert reason in each.refusal, name
        assert each.value == value
    assert [each.refusal for each in found[len(REFUSED) :]] == [None] * 4


KEYWORDS: dict[str, st.SearchStrategy[Any]] = {
    "type": st.sampled_from(["string", "integer", "number", "array", "object", "boolean", "null"]),
    "minLength": st.integers(0, 3), "maxLength": st.integers(3, 9), "format": st.sampled_from(["date", "isbn", "email"]),
    "pattern": st.sampled_from(["^a+$", "(?i)a", "[0-9]{2}", r"\bx", "a|b"]), "multipleOf": st.integers(1, 5),
    "minimum": st.integers(0, 2), "maximum": st.integers(2, 9), "uniqueItems": st.booleans(), "minItems": st.integers(0, 2),
    "maxItems": st.integers(2, 4), "minContains": st.integers(0, 2), "enum": st.lists(st.sampled_from(["a", 1]), min_size=1),
    "minProperties": st.integers(0, 1), "required": st.just(["a"]), "default": st.just({"type": "array", "contains": 1}),
    "dependentRequired": st.just({"a": ["b"]}),
}  # fmt: skip
HOLDING = ("items", "contains", "additionalProperties", "propertyNames", "not", "if", "then")


def _within(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Schemas that hold others."""
    named = st.dictionaries(st.sampled_from(["a", "type", "maxLength"]), inner, max_size=2)
    several = st.lists(inner, min_size=1, max_size=2)
    held = dict.fromkeys(HOLDING, inner) | dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), several)
    return st.fixed_dictionaries({}, optional=KEYWORDS | held | {"properties": named, "patternProperties": named})


SCHEMAS = st.recursive(st.fixed_dictionaries({}, optional=KEYWORDS), _within, max_leaves=6)


@settings(max_examples=30)  # each is several schemas: of many at once hypothesis makes none
@given(st.lists(SCHEMAS, min_size=3, max_size=5))
@pytest.mark.long
def test_what_is_left_is_followed(followed: Followed, schemas: list[dict[str, Any]]) -> None:
    """Whatever is accepted compiles as it is handed on, and nothing of it was added or changed."""
    accepted = [each for each in followed(*(("json", schema) for schema in schemas)) if each.refusal is None]
    again = followed(*(("json", each.value) for each in accepted))
    assert again == [Constraint(each.value) for each in accepted]


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=8)
BOUNDED = TEXTS.map(lambda text: "".join(sign for sign in text if sign >= " " and sign not in '"\\'))
WHOLE = st.integers(-9, 9) | st.sampled_from([1.0, 0.5, -2.25])
NUMBERS = WHOLE | st.sampled_from([0.1, 1e-7, 1e22])  # in an enum, xgrammar writes 0.1 with 17 digits
NAMES_OF = st.sampled_from(["a", "b", "é", "long name", 'quo"te'])
Pair = tuple[dict[str, Any], Any]
"""A schema, and a value that obeys it."""


def _text(text: str) -> Pair:
    return {"type": "string"}, text


def _leaves() -> st.SearchStrategy[Pair]:
    return st.one_of(
        TEXTS.map(_text),
        BOUNDED.map(lambda text: ({"type": "string", "minLength": len(text), "maxLength": len(text) + 3}, text)),
        NUMBERS.map(lambda number: ({"type": "number"}, number)),
        st.integers(-99, 99).map(lambda number: ({"type": "integer"}, float(number) if number % 2 else number)),
        st.sampled_from([True, False]).map(lambda value: ({"type": "boolean"}, value)),
        st.just(({"type": "null"}, None)),
        st.lists(TEXTS | WHOLE, min_size=1, max_size=3).map(lambda values: ({"enum": values}, values[-1])),
        st.dictionaries(TEXTS, WHOLE, max_size=2).map(lambda value: ({"const": value}, dict(reversed(value.items())))),
    )


def _object(parts: dict[str, Pair], *, closed: bool) -> Pair:
    """Properties in the opposite order of the schema's."""
    schema: dict[str, Any] = {"type": "object", "properties": {name: schema for name, (schema, _) in parts.items()}}
    schema |= {"required": list(parts)} | ({"additionalProperties": False} if closed else {})
    return schema, {name: parts[name][1] for name in reversed(parts)}


def _array(item: Pair, count: int) -> Pair:
    return {"type": "array", "items": item[0], "minItems": 1, "maxItems": 4}, [item[1]] * count


def _either(left: Pair, right: Pair) -> Pair:
    return {"anyOf": [left[0], right[0]]}, right[1]


def _larger(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    return st.one_of(
        st.builds(_object, st.dictionaries(NAMES_OF, inner, max_size=4), closed=st.booleans()),
        st.builds(_array, inner, st.integers(1, 4)),
        st.builds(_either, inner, inner),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda parts: (
                {"type": "array", "prefixItems": [schema for schema, _ in parts], "items": False},
                [value for _, value in parts],
            )
        ),
    )


def _referring(pair: Pair) -> Pair:
    """The same by reference: at the root, where definitions are looked for."""
    return {"type": "array", "items": {"$ref": "#/$defs/part"}, "$defs": {"part": pair[0]}}, [pair[1]]


PAIRS = st.recursive(_leaves(), _larger, max_leaves=6)


@settings(max_examples=2, phases=[Phase.generate])  # each is many schemas, and takes long to shrink
@given(st.lists(PAIRS | PAIRS.map(_referring), min_size=60, max_size=80))
@pytest.mark.long
def test_an_example_is_what_the_grammar_accepts(followed: Followed, pairs: list[Pair]) -> None:
    """Whatever the schema and the example, however it is spaced and ordered, what is shown is what the model may write.

    Parts whose schema says nothing are left out: after their commas xgrammar wants a space
    (github.com/mlc-ai/xgrammar/issues/945).
    """
    asked = []
    for schema, value in pairs:
        spec = OutputSpec.model_validate({"type": "json", "schema": schema})
        asked.append(("json", schema, [written_answer(json.dumps(value, indent=1), spec)]))
    for (_, schema, [shown]), found in zip(asked, followed(*asked), strict=True):
        assert found.unwritable == (), (schema, shown, found)


def test_an_example_that_the_model_could_not_write_is_known(followed: Followed) -> None:
    """Spaces that a schema's grammar forbids, an order that is not the schema's, a text that a pattern does not match."""
    names = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}}, "b": {}}}
    shown = ['{"a":["x","y"]}', '{"a":["x", "y"]}', '{"b":1,"a":[]}', '{"a":["x","y"]']
    of_schema, of_pattern = followed(("json", names, shown), ("regex", "[0-9]+", ["12", "1a", "12 "]))
    assert of_schema.unwritable == (1, 2, 3)
    assert of_pattern.unwritable == (1, 2)


def test_more_optional_properties_than_can_be_prepared_are_refused(followed: Followed) -> None:
    """Preparing some thousands would take minutes for some thousands, wherever in a schema; those that are required cost nothing."""
    names = [f"p{number}" for number in range(2000)]
    many: dict[str, Any] = {"type": "object", "properties": {name: {"type": "string"} for name in names}}
    within = {"type": "array", "items": {"anyOf": [many, {"type": "null"}]}}
    required, optional, deeper = followed(("json", many | {"required": names[1:]}), ("json", many), ("json", within))
    assert required.refusal is None
    for found in (optional, deeper):
        assert "an object of 2,000 properties that are not required, of which vLLM can prepare 1,000" in str(
            found.refusal
        )


def test_what_takes_too_long_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the processor's time, so that a busy machine refuses nothing."""
    code = "import os, resource, signal; os.kill(os.getpid(), signal.SIGXCPU)"
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda _, **options: real([sys.executable, "-c", code], **options))
    assert "takes vLLM more than 30 s to prepare" in str(grammars.followed_elsewhere("regex", "a{8}").refusal)


def test_a_process_that_dies_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would end the engine is refused before; what is nothing to vLLM's grammar is not asked about."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert "ends the process" in str(grammars.followed_elsewhere("regex", "a{7}").refusal)
    assert not grammars.follows_xgrammar({grammars.SETTINGS: {"backend": "guidance"}})
