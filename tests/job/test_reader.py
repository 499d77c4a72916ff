"""The job file: what may stand in it, and how its faults are told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from batchinfer.errors import BatchinferError, SpecError, UsageError
from batchinfer.job import reader
from batchinfer.job.reader import ROOTS_VARIABLE, Job
from batchinfer.job.spec import JobSpec
from batchinfer.prompting.output import SplitStep

EXAMPLE_JOBS = sorted((Path(__file__).parents[2] / "jobs").glob("*/job.yaml"))
SMALLEST = "name: shop\ninput: {path: queries.parquet, key: [term]}\n"
ASKING = "prompt: {template: '{{ term }}'}\nmodel: {id: org/name}\n"


def problems(text: str) -> list[str]:
    """What is wrong with a job file, sentence by sentence."""
    with pytest.raises(SpecError) as caught:
        reader.parse(text, "job.yaml")
    said = str(caught.value).splitlines()
    count = len(caught.value.problems)
    assert said[0] == f"job.yaml has {count} problem{'s' if count > 1 else ''}:"
    assert [line.strip() for line in said[1:]] == caught.value.problems
    return caught.value.problems


def write_job(folder: Path, text: str = SMALLEST) -> Path:
    """A job file in a folder, both made here."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# What is read.


def test_name_and_input_are_enough() -> None:
    """A job of two fields is valid: it has only imported answers, and everything else has its default."""
    spec = reader.parse(SMALLEST, "job.yaml")
    assert (spec.name, spec.input.path, spec.input.key) == ("shop", "queries.parquet", ["term"])
    assert (spec.prompt, spec.model, spec.match, spec.schedule) == (None, None, None, None)
    assert (spec.on_failure, spec.keep_versions, spec.gate.coverage, spec.gate.failures) == ("keep", 5, 0.95, 0.05)


LATER = """\
match: {terms: [prediction, term], concept: term, language: term, where: {prediction: [EU, US]}, min_score: 0.5}
serve: {max_age: 15m}
schedule: {cron: "0 3 * * 1", timezone: Europe/Berlin}
keep_versions: 2
cache: {max_age: 2w}
engine: {replicas: 2, tensor_parallel: 4, stall: 90s}
"""


def test_a_match_section_names_parts_of_the_entries() -> None:
    """Each name that is neither a key column nor within a JSON prediction is told, with its line."""
    text = (
        SMALLEST
        + "match:\n  terms: [term,\n    prediction.names,\n    nmae]\n  concept: brand\n  where: {prediction.a: 1, x: 2}\n"
    )
    with pytest.raises(SpecError) as caught:
        reader.parse(text, "job.yaml")
    first = SMALLEST.count("\n") + 2
    assert caught.value.problems == [
        f"line {first + 1}: match.terms: prediction.names is within a prediction, but output.type is text, not json.",
        f"line {first + 2}: match.terms: nmae is not a column of input.key (term), and not prediction.",
        f"line {first + 3}: match.concept: brand is not a column of input.key (term), and not prediction.",
        f"line {first + 4}: match.where: prediction.a is within a prediction, but output.type is text, not json.",
        f"line {first + 4}: match.where: x is not a column of input.key (term), and not prediction.",
    ]


@pytest.mark.parametrize("part", ["prediction.", "prediction..x", "prediction.x.", ".x"])
def test_a_part_is_written_with_dots_between(part: str) -> None:
    """A place in a prediction that cannot be is told at once, not when the terms are looked for."""
    text = SMALLEST + f"output: {{type: json, schema: {{}}}}\nmatch: {{terms: [{part}], concept: term}}\n"
    with pytest.raises(SpecError, match=r"match\.terms"):
        reader.parse(text, "job.yaml")


@pytest.mark.parametrize("where", ["[]", "1e999", "-1e999", "[1, 1e999]"])
def test_where_names_values_that_there_can_be(where: str) -> None:
    """No list of nothing, and no number that JSON does not have."""
    with pytest.raises(SpecError, match="where"):
        reader.parse(SMALLEST + f"match: {{terms: [term], concept: term, where: {{term: {where}}}}}\n", "job.yaml")


def test_sections_of_later_work_are_kept() -> None:
    """match, serve and schedule are read and kept as they were written."""
    spec = reader.parse(SMALLEST + LATER, "job.yaml")
    assert spec.match is not None
    assert spec.schedule is not None
    assert spec.match.model_dump() == {
        "terms": ["prediction", "term"], "concept": "term", "language": "term",
        "where": {"prediction": ["EU", "US"]}, "min_score": 0.5, "min_length": 2, "stop_terms": [], "overlaps": False,
        "accents": "keep", "most_concepts": 20, "generic": "report",
    }  # fmt: skip
    assert (spec.schedule.cron, spec.schedule.timezone) == ("0 3 * * 1", "Europe/Berlin")
    assert (spec.serve.max_age, spec.cache.max_age) == (timedelta(minutes=15), timedelta(weeks=2))
    assert (spec.engine.replicas, spec.engine.tensor_parallel, spec.engine.stall) == (2, 4, timedelta(seconds=90))


def test_a_spec_can_be_written_and_read_again() -> None:
    """The plain values of a job file, as a manifest keeps them, are a job file that says the same."""
    steps = "output: {type: json, schema: {type: array}, steps: [strip, {split: ','}]}\n"
    spec = reader.parse(SMALLEST + ASKING + LATER + steps, "job.yaml")
    written = yaml.safe_dump(spec.model_dump(mode="json", by_alias=True))
    assert reader.parse(written, "job.yaml") == spec
    assert spec.output.steps == ["strip", SplitStep(split=",")]


def test_a_spec_cannot_be_changed() -> None:
    """A job that was read is frozen, in every section."""
    spec = reader.parse(SMALLEST + ASKING + LATER, "job.yaml")
    sections = [spec, *(value for _, value in spec if isinstance(value, BaseModel))]
    assert len(sections) > 10
    for section in sections:
        name = next(iter(type(section).model_fields))
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, name, getattr(section, name))


@pytest.mark.parametrize(
    "text", ["Yes", "No", "yes", "on", "off", "y", "n", "2026-01-31", "10:30", "01234", "1_000", "=", "0b1"]
)
def test_what_yaml_1_2_calls_text_is_text(text: str) -> None:
    """A choice or a value may be Yes, on, a date, a time or a postal code without quotes."""
    spec = reader.parse(
        f"{SMALLEST}{ASKING}output: {{type: choice, choices: [{text}, Other]}}\ndescription: {text}\n", "job.yaml"
    )
    assert spec.output.choices == [text, "Other"]
    assert spec.description == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("12", 12), ("-7", -7), ("+7", 7), ("0", 0),
        ("0x1F", 31), ("0o17", 15), ("1.50", 1.5), ("-.5", -0.5), ("1e3", 1000.0), ("1.5E-3", 0.0015), ("0.0", 0.0),
        ("'12'", "12"), ('"true"', "true"), ("1.2.3", "1.2.3"), ("12 kg", "12 kg"),
    ],
)  # fmt: skip
def test_scalars_are_read_as_yaml_1_2_reads_them(text: str, value: Any) -> None:
    """Numbers, true, false and null are what they look like, and quotes make a text of anything."""
    spec = reader.parse(
        f"{SMALLEST}prompt: {{template: '{{{{ term }}}}'}}\nmodel:\n  id: m\n  options: {{x: {text}}}\n", "j"
    )
    assert spec.model is not None
    found = spec.model.options["x"]
    assert (found, type(found)) == (value, type(value))


@given(st.integers(1, 10**6), st.sampled_from("smhdw"))
def test_a_duration_is_a_number_and_a_unit(number: int, unit: str) -> None:
    """Each unit is worth its seconds, and what is written from a duration is read as the same."""
    seconds = number * {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[unit]
    spec = reader.parse(f"{SMALLEST}cache: {{max_age: {number}{unit}}}\n", "job.yaml")
    assert spec.cache.max_age == timedelta(seconds=seconds)
    assert spec.model_dump(mode="json")["cache"]["max_age"] == f"{seconds}s"


@pytest.mark.parametrize("text", ["60", "1.5h", "5y", "-1d", "d", "''", "1 h", "[60s]"])
def test_anything_else_is_no_duration(text: str) -> None:
    """A number without a unit, or of an unknown one, is refused with examples of what is right."""
    [problem] = problems(f"{SMALLEST}serve: {{max_age: {text}}}\n")
    assert problem == "line 3: serve.max_age: must be a number and a unit, such as 60s, 15m, 12h, 7d or 2w."


# What is refused, and how it is told.


@pytest.mark.parametrize(
    ("gate", "problem"),
    [
        ("rows: 0", "gate.rows: input should be greater than or equal to 1 (it is 0)."),
        ("carried: 2", "gate.carried: input should be less than or equal to 1 (it is 2)."),
        ("golden: {}", "gate.golden.path: is missing."),
        ("golden: {path: ''}", "gate.golden.path: string should have at least 1 character (it is '')."),
        (
            "golden: {path: a, compare: like}",
            "gate.golden.compare: input should be 'equal' or 'contains' (it is 'like').",
        ),
        (
            "golden: {path: a, accuracy: 90}",
            "gate.golden.accuracy: input should be less than or equal to 1 (it is 90).",
        ),
        ("golden: {path: a, acuracy: 1}", "gate.golden.acuracy: there is no such field; did you mean accuracy?"),
    ],
)
def test_a_gate_that_cannot_be(gate: str, problem: str) -> None:
    """Limits that no version can be held to are refused, with their place."""
    assert problems(f"{SMALLEST}gate: {{{gate}}}\n") == [f"line 3: {problem}"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("promt: {template: x}", "promt: there is no such field; did you mean prompt?"),
        ("keep_version: 3", "keep_version: there is no such field; did you mean keep_versions?"),
        ("sampling: {temprature: 1}", "sampling.temprature: there is no such field; did you mean temperature?"),
        ("output: {shema: {}}", "output.shema: there is no such field; did you mean schema?"),
        (
            "output: {steps: [{split: ',', spilt: ';'}]}",
            "output.steps.0.spilt: there is no such field; did you mean split?",
        ),
        (
            "gate: {zzz: 1}",
            "gate.zzz: there is no such field; known are coverage, failures, shrink, changed, rows, carried, reviewed, golden.",
        ),
        (
            "prompt: {template: x, examples: [{input: {}, output: a, outptu: b}]}\nmodel: {id: m}",
            "prompt.examples.0.outptu: there is no such field; did you mean output?",
        ),
    ],
)
def test_an_unknown_field_gets_the_nearest_right_name(line: str, sentence: str) -> None:
    """A typo in a field's name is answered with the field that was probably meant, or with those that there are."""
    assert f"line 3: {sentence}" in problems(SMALLEST + line)


def test_every_fault_of_a_file_is_told_at_once() -> None:
    """Faults in many sections are one message, each with its own line, in the order of the lines."""
    text = """\
name: My Shop
input:
  path: queries.parquet
  key: []
  kee: [term]
sampling:
  temperature: -1
  max_tokens: many
gate:
  coverage: 95
serve: {max_age: 60}
schedule:
  cron: every monday
  timezone: Mars/Olympus
match:
  terms: []
output:
  type: jsn
on_failure: explode
keep_versions: 0
"""
    found = problems(text)
    lines = [int(problem.split(":")[0].removeprefix("line ")) for problem in found]
    assert lines == sorted(lines) == [1, 4, 5, 7, 8, 10, 11, 13, 14, 15, 16, 18, 19, 20]
    assert [problem.split(": ")[1] for problem in found] == [
        "name", "input.key", "input.kee", "sampling.temperature", "sampling.max_tokens", "gate.coverage", "serve.max_age",
        "schedule.cron", "schedule.timezone", "match.concept", "match.terms", "output.type", "on_failure", "keep_versions",
    ]  # fmt: skip


def test_faults_in_one_list_are_told_at_once() -> None:
    """A fault of one example or step does not hide another kind of fault in the next."""
    text = """\
prompt:
  template: "{{ term }}"
  examples:
    - {input: {term: a}}
    - {input: {term: b}, output: 5}
    - {input: {term: c}, output: [d]}
model: {id: org/name}
output:
  steps:
    - stripp
    - {splitt: ","}
"""
    found = [problem.split(": ")[:2] for problem in problems(SMALLEST + text)]
    for place in (
        ["line 6", "prompt.examples.0.output"], ["line 7", "prompt.examples.1.output"], ["line 8", "prompt.examples.2.output"],
        ["line 12", "output.steps.0"], ["line 13", "output.steps.1"],
    ):  # fmt: skip
        assert place in found


def test_a_value_of_several_kinds_is_told_of_the_kind_that_was_meant() -> None:
    """Where a number or a word may stand, a number that is out of range is told nothing of the word."""
    asking = "prompt: {template: '{{ term }}', shots: -1}\nmodel: {id: m}\nengine: {replicas: 0}\n"
    assert problems(SMALLEST + asking) == [
        "line 3: prompt.shots: input should be greater than or equal to 0 (it is -1).",
        "line 5: engine.replicas: input should be greater than or equal to 1 (it is 0).",
    ]


TEMPLATES = [
    ("{{ term", "prompt.template, line 1: unexpected end of template"),
    ("{{ term | nosuch }}", "prompt.template, line 1: No filter named 'nosuch'."),
    ("{{ term.__class__ }}", "prompt.template: __class__ is an internal name of Python, which a template may not use."),
    ("hello", "prompt.template: uses no column, so every row would be the same question: write {{ column }}."),
]


@pytest.mark.parametrize(("template", "sentence"), TEMPLATES)
def test_a_template_that_cannot_be_used_is_told_with_its_line(template: str, sentence: str) -> None:
    """A job file that is well-formed but for its template is refused when it is read, with the template's line."""
    [problem] = problems(f'{SMALLEST}prompt:\n  system: x\n  template: "{template}"\nmodel: {{id: m}}\n')
    assert problem.startswith(f"line 5: {sentence}")


@pytest.mark.parametrize(("template", "sentence"), TEMPLATES)
def test_a_template_is_checked_whatever_else_is_off(template: str, sentence: str) -> None:
    """Faults of the template are told together with those of its own section and of others."""
    text = f'{SMALLEST}keep_versions: 0\nprompt:\n  shots: -1\n  template: "{template}"\n'
    found = problems(text)
    assert [problem.split(": ")[:2] for problem in found[:2]] == [
        ["line 3", "keep_versions"],
        ["line 5", "prompt.shots"],
    ]
    assert len(found) == 3
    assert found[2].startswith(f"line 6: {sentence}")


def test_examples_are_checked_when_the_file_is_read() -> None:
    """Too many shots and an example that does not fit the template are told at once, each with its line."""
    text = """\
prompt:
  template: "{{ term }} {{ note | default('') }}"
  examples:
    - {input: {term: a, note: b}, output: c}
    - {input: {term: a}, output: c}
  shots: 3
model: {id: org/name}
sampling: {top_p: 2}
"""
    assert problems(SMALLEST + text) == [
        "line 7: prompt.examples, number 2: the template needs a value that is not there: 'note' is undefined.",
        "line 8: prompt.shots: is 3, but there are only 2 examples.",
        "line 10: sampling.top_p: input should be less than or equal to 1 (it is 2).",
    ]


def test_examples_in_a_file_are_not_missed() -> None:
    """Shots of examples that lie in a Parquet file cannot be counted from the job file alone."""
    asking = "prompt: {template: '{{ term }}', examples: shots.parquet, shots: 3}\nmodel: {id: org/name}\n"
    spec = reader.parse(SMALLEST + asking, "job.yaml")
    assert spec.prompt is not None
    assert (spec.prompt.examples, spec.prompt.shots) == ("shots.parquet", 3)


def test_as_many_choices_as_can_be_scored_are_allowed() -> None:
    """128 choices are a job."""
    choices = ", ".join(f"c{number}" for number in range(128))
    spec = reader.parse(f"{SMALLEST}output: {{type: choice, choices: [{choices}]}}\n", "job.yaml")
    assert len(spec.output.choices or []) == 128


@pytest.mark.parametrize(
    "name",
    ["tokenize", "add_generation_prompt", "conversation", "messages", "chat_template", "return_tensors", "return_dict"],
)
def test_arguments_that_the_call_sets_are_refused(name: str) -> None:
    """What the chat template is called with by the program itself cannot be set in the job file."""
    asking = f"prompt: {{template: '{{{{ term }}}}', chat_template_kwargs: {{{name}: x}}}}\nmodel: {{id: m}}\n"
    [problem] = problems(SMALLEST + asking)
    assert problem.startswith(f"line 3: prompt.chat_template_kwargs: {name} cannot be set")


def test_what_is_missing_is_named() -> None:
    """A required field that is absent is told where it should be."""
    assert problems("description: nothing else\n") == ["line 1: input: is missing.", "line 1: name: is missing."]
    assert problems("name: shop\ninput:\n  path: q.parquet\n") == ["line 2: input.key: is missing."]


def test_a_field_that_stands_twice_is_refused() -> None:
    """Of two fields with one name neither wins in silence, at any depth."""
    assert problems(f"{SMALLEST}name: other\n") == ["line 3: not valid YAML: name is here a second time"]
    nested = f"{SMALLEST}gate:\n  coverage: 0.9\n  failures: 0.1\n  coverage: 0.1\n"
    assert problems(nested) == ["line 6: not valid YAML: coverage is here a second time"]


@pytest.mark.parametrize("text", ["", "# only a comment\n", "- name: shop\n", "shop\n", "5\n", "null\n"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    """A list, a word or nothing at all is told what a job file begins with."""
    assert problems(text) == ["line 1: a job file is a mapping that begins with name: …"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: [shop\n", "line 2: "),
        ("name: shop\n\tinput: x\n", "line 2: "),
        ("name: shop\ninput: *nowhere\n", "line 2: "),
        ("name: shop\nname2: !!python/object:os.system {}\n", "line 2: "),
        ("name: shop\n---\nname: shop\n", "line 2: "),
        ("name: shop\n? [input]\n: x\n", "line 2: "),
        ("name: shop\n? {input: x}\n: x\n", "line 2: "),
        ("name: shop\nkeep_versions: !!int five\n", ""),
        ("name: shop\ndescription: be\x07ll\n", "line 2: "),
    ],
)
def test_invalid_yaml_is_told_with_its_line(text: str, line: str) -> None:
    """What is no YAML, or YAML that builds more than plain values, is one sentence and no traceback."""
    [problem] = problems(text)
    assert problem.startswith(f"{line}not valid YAML: ")


@pytest.mark.parametrize("name", ["Shop", "1shop", "", "a b", "a" * 65, "../shop", "sh\u00f6p", "_shop"])
def test_a_name_that_could_be_no_folder_is_refused(name: str) -> None:
    """A job's name is lower case, short, and safe as the name of a folder."""
    [problem] = problems(f"name: '{name}'\ninput: {{path: q, key: [k]}}\n")
    assert problem.startswith("line 1: name: ")


CROSS = [
    ("output: {type: json}", "output: type: json needs schema."),
    ("output: {type: choice}", "output: type: choice needs choices."),
    ("output: {type: regex}", "output: type: regex needs pattern."),
    ("output: {schema: {}}", "output: schema belongs to type: json, but type is text."),
    ("output: {type: json, schema: {}, choices: [a, b]}", "output: choices belongs to type: choice, but type is json."),
    ("output: {type: json, schema: {}, pattern: a}", "output: pattern belongs to type: regex, but type is json."),
    ("output: {min_mass: 0.5}", "output: min_mass belongs to type: choice."),
    (
        "output: {type: choice, choices: [a, b], steps: [strip]}",
        "output: steps do not apply to a choice: the answer is one of the choices as they stand.",
    ),
    ("output: {type: choice, choices: [a, b, a]}", "output.choices: names a more than once."),
    (
        "output: {type: choice, choices: [a, ' b']}",
        "output.choices: a choice must not be empty, nor begin or end with a space.",
    ),
    (
        "output: {type: choice, choices: [a, '']}",
        "output.choices: a choice must not be empty, nor begin or end with a space.",
    ),
    ("output: {type: regex, pattern: '[0-9'}", "output.pattern: is not a valid regular expression: "),
    ("output: {type: json, schema: {type: strin}}", "output.schema: is not a valid JSON Schema: 'strin' is not valid"),
    ("output: {type: json, schema: {pattern: '\\p{L}'}}", "output.schema: is not a valid JSON Schema: "),
    (
        "output: {type: json, schema: {$ref: '#/$defs/name'}}",
        "output.schema: refers to #/$defs/name, which is not in it",
    ),
    (
        "output: {type: json, schema: {properties: {a: {items: {$ref: 'http://localhost/s.json'}}}}}",
        "output.schema: refers to http://localhost/s.json, which is not in it, and nothing is fetched.",
    ),
    ("input2: 1", "input2: there is no such field; did you mean input?"),
    (
        "prompt: {template: '{{ term }}'}",
        "the file: has prompt but no model: give both, or neither for a job that has only imported answers.",
    ),
    (
        "model: {id: m}",
        "the file: has model but no prompt: give both, or neither for a job that has only imported answers.",
    ),
    (
        "prompt: {template: '{{ term }}'}\nmodel: {id: m, options: {dtype: float16}}",
        "model.options: dtype is set by model.dtype, not here.",
    ),
    (
        "prompt: {template: '{{ term }}'}\nmodel: {id: m, options: {tensor_parallel_size: 2}}",
        "model.options: tensor_parallel_size is set by engine.tensor_parallel, not here.",
    ),
    (
        f"output: {{type: choice, choices: [{', '.join(f'c{number}' for number in range(129))}]}}",
        "output.choices: has 129 choices, but at most 128 can be scored at once.",
    ),
    ("sampling: {stop: [END, '']}", "sampling.stop.1: string should have at least 1 character"),
    (
        "prompt: {template: '{{ term }}', chat_template_kwargs: {tokenize: true, style: x}}\nmodel: {id: m}",
        "prompt.chat_template_kwargs: tokenize cannot be set: the call of the chat template sets it itself.",
    ),
    ("schedule: {cron: '0 3 * *'}", "schedule.cron: must be five cron fields, such as 0 3 * * 1 (Mondays at 3:00)."),
]


@pytest.mark.parametrize(("lines", "sentence"), CROSS, ids=[sentence[:40] for _, sentence in CROSS])
def test_fields_that_do_not_fit_together_are_refused(lines: str, sentence: str) -> None:
    """Each rule between fields, and each value that must make sense by itself, has its sentence."""
    [problem] = problems(SMALLEST + lines)
    assert problem.split(": ", 1)[1].startswith(sentence)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ("key: [k]", "needs path or job, and not both."),
        ("path: q, job: other, key: [k]", "needs path or job, and not both."),
        ("path: q, explode: prediction.names, as: term, key: [k]", "explode and as belong together, and to job."),
        ("job: other, explode: prediction.names, key: [k]", "explode and as belong together, and to job."),
        ("job: other, as: term, key: [k]", "explode and as belong together, and to job."),
    ],
)
def test_the_input_has_one_source(fields: str, sentence: str) -> None:
    """The rows come from a path or from another job, never from both or neither."""
    assert problems(f"name: shop\ninput: {{{fields}}}\n") == [f"line 2: input: {sentence}"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            "job: other, explode: names, as: term, key: [term]",
            "input.explode: must be prediction, or a place in it, such as prediction.names.",
        ),
        (
            "job: other, explode: prediction., as: term, key: [term]",
            "input.explode: must be prediction, or a place in it, such as prediction.names.",
        ),
        (
            "job: other, explode: prediction, as: term, key: [k]",
            "input.key: lacks term, which tells the items of one list apart.",
        ),
    ],
)
def test_a_chained_job_names_its_list_and_its_item(fields: str, sentence: str) -> None:
    """The list is a part of a prediction, and its item is a column of the key."""
    assert problems(f"name: shop\ninput: {{{fields}}}\n") == [f"line 2: {sentence}"]


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        (
            "{drop: '['}",
            "output.steps.0.drop: is not a valid regular expression: unterminated character set at position 0.",
        ),
        (
            "{drop_echo: id}",
            "output.steps.0: the template does not use the column id, which rows with one answer need not share;",
        ),
        (
            "{drop_wrong_script: id}",
            "output.steps.0: the template does not use the column id, which rows with one answer",
        ),
        ("{drip: x}", "output.steps.0: is not a step; there are strip, casefold, squeeze,"),
        ("strap", "output.steps.0: is not a step; there are strip, casefold, squeeze,"),
    ],
)
def test_a_step_that_cannot_be_done_is_refused(step: str, sentence: str) -> None:
    """One sentence for each: an unknown step, a broken pattern, a column that rows with one prompt need not share."""
    text = "name: shop\ninput: {path: q.parquet, key: [id]}\nprompt: {template: '{{ text }}'}\nmodel: {id: m}\n"
    [problem] = problems(f"{text}output:\n  steps:\n    - {step}\n")
    assert problem.startswith(f"line 7: {sentence}")


def test_another_job_can_be_the_input() -> None:
    """The items of another job's predictions can be the rows."""
    spec = reader.parse(
        "name: shop\ninput: {job: other, explode: prediction.names, as: term, key: [term]}\n", "job.yaml"
    )
    assert (spec.input.job, spec.input.explode, spec.input.as_) == ("other", "prediction.names", "term")


def test_a_schema_may_refer_to_itself() -> None:
    """References within a schema are what they are for."""
    schema = "{type: array, items: {$ref: '#/$defs/name'}, $defs: {name: {type: string}}}"
    spec = reader.parse(f"{SMALLEST}output: {{type: json, schema: {schema}}}\n", "job.yaml")
    assert spec.output.schema_ is not None


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.text("abc:{}[]#&*!|>'\"%@ \n-", max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "path", "key", "type", "x"]), inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*JobSpec.model_fields, "x"]), junk, max_size=6))
def test_any_content_gives_a_job_or_a_spec_error(content: dict[str, Any]) -> None:
    """Whatever YAML holds, a job file is either read or refused with sentences, never with a traceback."""
    try:
        reader.parse(yaml.safe_dump(content), "job.yaml")
        said = []
    except SpecError as exc:
        said = exc.problems or ["no sentence"]
    assert all(problem.startswith("line ") for problem in said)


@given(st.text(st.sampled_from("name: \n-[]{}?*&!'\"#,|>%@`1\t"), max_size=25))
def test_any_text_gives_a_job_or_a_spec_error(text: str) -> None:
    """Whatever a file holds, it is either read or refused with sentences."""
    with pytest.raises(SpecError):
        reader.parse(text, "job.yaml")


# Which file.


def test_a_job_is_found_by_name_folder_or_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JOB is a name under ./jobs, a folder, or a file, and the path found is the same absolute one."""
    path = write_job(tmp_path / "jobs" / "shop")
    monkeypatch.chdir(tmp_path)
    names = [
        "shop",
        "jobs/shop",
        "./jobs/shop/",
        "jobs/shop/job.yaml",
        str(path.parent),
        str(path),
        f"../{tmp_path.name}/jobs/shop",
    ]
    assert {reader.load(name, {}).path for name in names} == {path}
    job = reader.load("shop", {})
    assert (job.name, job.folder) == ("shop", path.parent)


def test_a_name_under_jobs_comes_before_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both exist, the name means the job under ./jobs."""
    write_job(tmp_path / "shop")
    path = write_job(tmp_path / "jobs" / "shop")
    monkeypatch.chdir(tmp_path)
    assert reader.load("shop", {}).path == path


def test_a_job_that_is_not_there_gets_a_suggestion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong name is answered with the nearest job, with those that there are, or with how to make one."""
    monkeypatch.chdir(tmp_path)

    def said(name: str) -> str:
        with pytest.raises(UsageError, match=f"There is no job {name}: ") as caught:
            reader.load(name, {})
        return str(caught.value)

    assert said("shop").endswith("exists; make one with batchinfer init.")
    write_job(tmp_path / "jobs" / "sentiment")
    write_job(tmp_path / "jobs" / "fruits")
    assert said("sentimnet").endswith("exists; did you mean sentiment?")
    assert said("qqq").endswith("exists; there are fruits, sentiment.")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """A job file that is not UTF-8 is one sentence that names the file."""
    path = write_job(tmp_path)
    path.write_bytes(b"name: \xff\n")
    with pytest.raises(UsageError, match="cannot be read") as caught:
        reader.load(str(path), {})
    assert str(path) in str(caught.value)


def test_a_faulty_file_is_named(tmp_path: Path) -> None:
    """The message begins with the path of the file, so that it can be opened."""
    path = write_job(tmp_path, "name: shop\n")
    with pytest.raises(SpecError) as caught:
        reader.load(str(path), {})
    assert str(caught.value) == f"{path} has 1 problem:\n  line 1: input: is missing."
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("path", EXAMPLE_JOBS, ids=[path.parent.name for path in EXAMPLE_JOBS])
def test_the_example_jobs_can_be_read(path: Path) -> None:
    """Each job that comes with the program is valid, bears its folder's name, and has its list, or the job before it."""
    job = reader.load(str(path), {})
    assert job.name == path.parent.name
    if job.spec.input.path is None:
        assert (path.parents[1] / str(job.spec.input.job) / "job.yaml").is_file()
    else:
        assert job.inside("input.path", job.spec.input.path).is_file()


def test_there_are_example_jobs() -> None:
    """The two jobs of the README are among those that the test above reads."""
    assert {"sentiment", "fruit_families"} <= {path.parent.name for path in EXAMPLE_JOBS}


# Where its paths may lead.


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job with a folder beside it that it may not read."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.parquet").touch()
    (tmp_path / "shop-other").mkdir()
    return reader.load(str(write_job(tmp_path / "shop")), {})


@pytest.mark.parametrize(
    "text", ["queries.parquet", "./data", "data/*.parquet", "data/../q.parquet", "**/*.parquet", ".", "a[1].parquet"]
)
def test_a_path_below_the_job_is_allowed(job: Job, text: str) -> None:
    """A file, a folder or a glob below the job's folder is made absolute, whether it exists or not."""
    found = job.inside("input.path", text)
    assert found.is_absolute()
    assert found.is_relative_to(job.folder)


@pytest.mark.parametrize(
    "text",
    [
        "..", "../outside/secret.parquet", "data/../../outside", "*/../../outside/*", "../shop-other/q.parquet", "/etc/passwd",
        "{outside}/secret.parquet", "{outside}/*.parquet", "/", "../*/secret.parquet", "${ELSEWHERE}/secret.parquet",
    ],
)  # fmt: skip
def test_a_path_that_leaves_the_job_is_refused(job: Job, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """.., absolute paths, globs and variables lead nowhere outside the job's folder."""
    outside = job.folder.parent / "outside"
    monkeypatch.setenv("ELSEWHERE", str(outside))
    text = text.replace("{outside}", str(outside))
    with pytest.raises(SpecError) as caught:
        job.inside("input.path", text)
    assert caught.value.problems == [
        f"input.path: {text} is outside the job's folder: put it there, or name its root in $BATCHINFER_INPUT_ROOTS."
    ]


@pytest.mark.parametrize(
    "text", ["link/secret.parquet", "link", "link/*.parquet", "file.parquet", "file[1].parquet", "inner/../link"]
)
def test_a_link_that_leaves_the_job_is_refused(job: Job, text: str) -> None:
    """A link below the job's folder leads nowhere outside of it."""
    outside = job.folder.parent / "outside"
    (job.folder / "link").symlink_to(outside)
    (job.folder / "file.parquet").symlink_to(outside / "secret.parquet")
    (job.folder / "file[1].parquet").symlink_to(outside / "secret.parquet")
    with pytest.raises(SpecError):
        job.inside("input.path", text)


def test_a_link_within_the_job_is_allowed(job: Job) -> None:
    """A link to another place below the job's folder is as good as that place."""
    (job.folder / "real").mkdir()
    (job.folder / "latest").symlink_to(job.folder / "real")
    assert job.inside("input.path", "latest/q.parquet") == job.folder / "latest" / "q.parquet"


def test_a_job_may_itself_be_reached_by_a_link(tmp_path: Path) -> None:
    """A job whose folder is a link reads what lies in it."""
    write_job(tmp_path / "releases" / "42")
    (tmp_path / "shop").symlink_to(tmp_path / "releases" / "42")
    job = reader.load(str(tmp_path / "shop"), {})
    assert job.inside("input.path", "q.parquet") == tmp_path / "shop" / "q.parquet"


@pytest.mark.parametrize("name", ["[old] jobs", "what?", "a*b"])
def test_a_folder_named_like_a_glob_is_a_folder(tmp_path: Path, name: str) -> None:
    """Signs of a glob in the name of the job's own folder do not make its files unreachable."""
    job = reader.load(str(write_job(tmp_path / name / "shop")), {})
    assert job.inside("input.path", "q.parquet") == tmp_path / name / "shop" / "q.parquet"


def test_roots_allow_more(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that the environment names may be read, with what lies below them and nothing beside them."""
    outside, other = job.folder.parent / "outside", job.folder.parent / "shop-other"
    roots = f"{other}/../{outside.name}:{job.folder.parent / 'nowhere'}"
    allowed = reader.load(str(job.path), {ROOTS_VARIABLE: roots})
    monkeypatch.setenv("LISTS", str(outside))
    assert allowed.inside("input.path", str(outside / "*.parquet")) == outside / "*.parquet"
    assert allowed.inside("input.path", "../outside/secret.parquet") == outside / "secret.parquet"
    assert allowed.inside("input.path", "${LISTS}/secret.parquet") == outside / "secret.parquet"
    with pytest.raises(SpecError):
        allowed.inside("input.path", str(other / "q.parquet"))


@pytest.mark.parametrize("roots", ["", ":", "::"])
def test_an_empty_list_of_roots_allows_nothing(job: Job, roots: str) -> None:
    """An empty entry in the variable is not the current folder."""
    allowed = reader.load(str(job.path), {ROOTS_VARIABLE: roots})
    assert allowed.roots == ()
    with pytest.raises(BatchinferError):
        allowed.inside("input.path", str(Path.cwd() / "q.parquet"))


def test_a_link_below_one_root_may_not_lead_out_of_all(job: Job) -> None:
    """A link is followed only as far as the root that it lies in."""
    outside, other = job.folder.parent / "outside", job.folder.parent / "shop-other"
    (other / "link").symlink_to(outside)
    allowed = reader.load(str(job.path), {ROOTS_VARIABLE: str(other)})
    with pytest.raises(SpecError):
        allowed.inside("input.path", str(other / "link" / "secret.parquet"))
