"""Job files that are out to break the reading: each is refused in a sentence, soon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.errors import BatchinferError, SpecError, UsageError
from batchinfer.job import reader, yaml_file
from batchinfer.job.spec import JobSpec
from tests.fuzz import anything
from tests.job.files import ASKING, SMALLEST, problems, write_job

LAUGHS = "description: a\nx:\n" + "".join(
    f"  l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9) if n else 'ha'}]\n" for n in range(30)
)
FIELDS = [
    "description: {}", "input: {{path: {}, key: [a]}}", "input: {{path: a, key: [{}]}}", "input: {{path: a, key: [a], where: {{b: {}}}}}",
    "gate: {{golden: {{path: {}}}}}", "model: {{id: {}}}", "model: {{id: a, adapter: {}}}", "model: {{id: a, options: {{b: {}}}}}",
    "prompt: {{system: {}, template: a}}",
    "prompt: {{template: {}}}",
    "prompt: {{template: a, examples: [{{input: {{a: {}}}, output: b}}]}}",
    "output: {{type: choice, choices: [a, {}]}}", "output: {{type: regex, pattern: {}}}", "output: {{steps: [{{split: {}}}]}}",
    "match: {{terms: [a], concept: a, stop_terms: [{}]}}", "{}: a",
]  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(("bad", "name"), [('"a\\ud800b"', "U+D800"), ('"\\udfff"', "U+DFFF"), ('"a\\0b"', "U+0000")])
def test_what_is_no_text_is_refused_wherever_it_stands(field: str, bad: str, name: str) -> None:
    """Half a surrogate pair and the character of number zero are named with their line, in each field there is."""
    said = problems(f"name: shop\n{field.format(bad)}\n")
    assert said == [f"line 2: a text has {name}, which is not a character that can be stored: remove it"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x: " + "[" * 3000, "nested too deeply"),
        ("x: " + "[" * 150 + "]" * 150, "nested too deeply"),
        ("\n".join(" " * n + "a:" for n in range(400)), "nested too deeply"),
        ("x: " + "{a: " * 200 + "1" + "}" * 200, "nested too deeply"),
        ("\n".join(f"a{n}: &a{n} [{f'*a{n - 1}' if n else ''}]" for n in range(300)), "nested too deeply"),
        (LAUGHS, "too large: at most 30,000 values, aliases in full"),
        ("a: &a [*a]", "an alias refers to what it is in"),
        ("a: &a {b: [1, *a]}", "an alias refers to what it is in"),
        ("<<: &a {<<: *a}", "an alias refers to what it is in"),
        ("x: 0x" + "f" * 100_000, "a number has more than 40 digits"),
        ("x: " + "9" * 5000, "a number has more than 40 digits"),
        ("x: 0o" + "7" * 5000, "a number has more than 40 digits"),
        ("x: 1e999", "is not a number that can be stored"),
        ("x: !!binary aGk=", "the tag tag:yaml.org,2002:binary is not known here"),
        ("x: !!set {a}", "the tag tag:yaml.org,2002:set is not known here"),
        ("x: !!omap [a: 1]", "the tag tag:yaml.org,2002:omap is not known here"),
        ("x: !!timestamp 2020-01-01", "the tag tag:yaml.org,2002:timestamp is not known here"),
        ("x: !mine a", "the tag !mine is not known here"),
        ("x: !!float a", ""),
        ("x: !!map a", ""),
        ("x: !!seq {a: b}", ""),
        ("x: [" + "a, " * 100_000 + "]", "too large: at most 30,000 values, aliases in full"),
        ("x: " + "a" * 1_000_001, "more than 1,000,000 characters"),
    ],
    ids=lambda text: text[:20],
)
@pytest.mark.long
def test_a_file_beyond_all_measure_is_refused(text: str, sentence: str) -> None:
    """Depth, aliases, numbers, tags and size have limits, which are told with the line."""
    with pytest.raises(SpecError) as caught:
        reader.parse(f"name: shop\n{text}\n", "job.yaml")
    [problem, *_] = caught.value.problems
    assert problem.startswith("line ")
    assert sentence in problem


def test_aliases_are_what_they_are_for() -> None:
    """A part that stands in several places, and fields that are merged in, are read, and faults have the file's lines."""
    text = "name: shop\ninput: {path: a, key: &key [a]}\nmatch:\n  <<: {min_length: 3}\n  terms: *key\n  concept: a\n"
    spec = reader.parse(text, "job.yaml")
    assert spec.match is not None
    assert (spec.match.terms, spec.match.min_length) == (["a"], 3)
    said = problems(text.replace("concept", "min_length: 4\n  concpt"))
    assert next(problem for problem in said if "concpt" in problem).startswith("line 7: ")


def test_a_whole_job_at_the_limits_is_read() -> None:
    """Levels up to the limit, as a schema has them, and thousands of values are no fault."""
    schema: Any = {"type": "string"}
    for _ in range(40):
        schema = {"properties": {"a": schema}}
    content = {"output": {"type": "json", "schema": schema}, "input": {"path": "a", "key": ["a"]}, "name": "shop"}
    content["match"] = {"terms": ["a"], "concept": "a", "stop_terms": [f"term {n}" for n in range(5000)]}
    assert reader.parse(json.dumps(content), "job.yaml").match is not None


@pytest.mark.parametrize("name", ["x" * 300, "jobs/" + "x" * 300, "/".join(["x" * 200] * 25), "a\0b"])
def test_a_name_that_no_file_can_have_names_no_job(name: str) -> None:
    """What is too long for a path, or no path, is told, and not what the system says of it."""
    with pytest.raises(UsageError, match=r"The job .* (is too long: a name has at most 255 bytes|has the character U)"):
        reader.load(name, {})


@pytest.mark.parametrize("text", ["x" * 300, "${LONG}", "a/" * 3000 + "b"])
def test_a_path_that_no_file_can_have_is_refused(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of the job file come through one door, after their variables are filled in."""
    monkeypatch.setenv("LONG", "y" * 300)
    job = reader.load(str(write_job(tmp_path)), {})
    with pytest.raises(SpecError, match=r"gate\.golden\.path: .* is too long: a name has at most 255 bytes"):
        job.inside("gate.golden.path", text)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    """A file that cannot be a job file is refused by its size."""
    path = tmp_path / "job.yaml"
    with path.open("wb") as file:
        file.truncate(10**9)
    with pytest.raises(UsageError, match=r"is not a job file: it has more than 1,000,000 bytes"):
        reader.load(str(path), {})


# Fuzzing.

hostile_texts = st.sampled_from([
    "", "a", "{{ x }}", "{{ 9 ** 9 ** 9 }}", "(a+)+$", "{% for i in range(99999) %}{% endfor %}", "\ud800", "\0", "ü" * 300, "../../x",
    "/etc/passwd",
    "~",
    "400000w",
    "3d",
    "prediction.names",
    "prediction" + ".a" * 500, "(" * 500, "[[:alpha:]]",
    "${HOME}", "*" * 300, "auto",
    "all", "json", "choice", "regex", "9" * 5000, "%", "\x1f", "\u202e", "\r\n", "a.b", "true", "null", "#", "bundled/x",
])  # fmt: skip
leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | hostile_texts | st.sampled_from([0, -1, 10**30, 1e308])
)
names = st.sampled_from([*JobSpec.model_fields, "path", "key", "types", "where", "as", "explode", "job", "template", "system",
    "examples", "shots", "input", "output", "id", "adapter", "options", "type", "schema", "choices", "pattern", "steps", "split", "drop",
    "drop_echo",
    "min_mass",
    "golden",
    "accuracy",
    "terms",
    "concept",
    "cron", "timezone", "count", "days", "stop_at", "max_age", "$ref", "allOf",
    "properties", "x"])  # fmt: skip
junk = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)
WHOLE = yaml.safe_load(SMALLEST + ASKING)


@anything(3)
@given(st.dictionaries(names, junk, max_size=5), st.booleans())
@pytest.mark.long
def test_any_sections_give_a_job_or_sentences(sections: dict[str, Any], whole: bool) -> None:
    """Whatever the sections of a job file hold, it is read or refused in sentences with lines."""
    text = yaml.safe_dump((WHOLE if whole else {}) | sections)
    said = ["line 1: nothing"]
    try:
        reader.parse(text, "job.yaml")
    except SpecError as exc:
        said = exc.problems
    assert said
    assert all(problem.startswith("line ") for problem in said)


@anything(3)
@given(
    st.text()
    | st.lists(st.sampled_from([*"[]{}:,-?|>&*!'\"%@#\n \t0x9", "&a ", "*a", "<<: ", "!!int ", "\\ud800", "key"])).map(
        "".join
    )
)
def test_any_text_gives_a_tree_or_a_sentence(text: str) -> None:
    """Whatever a file holds, YAML is read of it or a sentence told."""
    said, line = "read", 1
    try:
        yaml_file.read(text)
    except yaml_file.YamlFault as exc:
        said, line = str(exc), exc.line
    assert said
    assert line >= 1


@anything(3)
@given(st.binary(max_size=300), st.integers(0, 200))
def test_any_bytes_give_a_job_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, noise: bytes, place: int) -> None:
    """A job file that was damaged anywhere is read or refused, whatever bytes stand in it."""
    whole = (SMALLEST + ASKING).encode()
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    path.write_bytes(whole[:place] + noise + whole[place:])
    said = "\n  line "
    try:
        reader.load(str(path), {})
    except BatchinferError as exc:
        said = str(exc)
    assert "\n  line " in said or "not a job file: it is not UTF-8 text: " in said
