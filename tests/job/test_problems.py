"""Faults of a job file, as their lines and sentences."""

from __future__ import annotations

import pytest

from batchinfer.job import reader
from tests.job.files import SMALLEST, problems


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
        (
            "recall: 0.9, golden: {path: a}",
            "gate.recall: it is of golden rows that say what a right answer contains: set gate.golden with compare: contains.",
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
            (
                "gate.zzz: there is no such field; known are coverage, failures, shrink, changed, rows, carried, reviewed, golden, "
                "audit, precision, recall, calibration."
            ),
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


def test_every_fault_of_a_file_is_reported_at_once() -> None:
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


def test_faults_in_one_list_are_reported_at_once() -> None:
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


def test_a_value_of_several_kinds_is_reported_of_the_kind_that_was_meant() -> None:
    """Where a number or a word may stand, a number that is out of range is reported nothing of the word."""
    asking = "prompt: {template: '{{ term }}', shots: -1}\nmodel: {id: m}\nengine: {replicas: 0}\n"
    assert problems(SMALLEST + asking) == [
        "line 3: prompt.shots: input should be greater than or equal to 0 (it is -1).",
        "line 5: engine.replicas: input should be greater than or equal to 1 (it is 0).",
    ]


ASKED = "prompt: {{template: '{{{{ term }}}}', {}}}\nmodel: {{id: m}}"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "keep_versions: forever",
            "keep_versions: input should be a valid integer, or a section with the fields count, days (it is 'forever').",
        ),
        (
            "keep_versions: [3]",
            "keep_versions: input should be a valid integer, or a section with the fields count, days.",
        ),
        (
            "keep_versions: 2.5",
            "keep_versions: input should be a valid integer, got a number with a fractional part (it is 2.5).",
        ),
        ("keep_versions: {count: many}", "keep_versions.count: input should be a valid integer (it is 'many')."),
        ("engine: {replicas: many}", "engine.replicas: input should be a valid integer, or 'auto' (it is 'many')."),
        (
            "engine: {kind: vlm}",
            "engine.kind: input should be 'vllm', 'ray', 'openai' or 'openai_batch' (it is 'vlm').",
        ),
        ("engine: {kind: [vllm]}", "engine.kind: input should be 'vllm', 'ray', 'openai' or 'openai_batch'."),
        (
            "engine: vllm",
            "engine: input should be a section with the fields kind, replicas, tensor_parallel, stall (it is 'vllm').",
        ),
        ("engine: {kind: openai}", "engine.base_url: is missing."),
        (
            "engine: {kind: openai, base_url: 'http://host/v1', replicas: 2}",
            (
                "engine.replicas: there is no such field; known are kind, base_url, api_key_env, served_model_name, trust_model, patience, "
                "in_flight, stall."
            ),
        ),
        (
            "engine: {kind: openai, base_url: host}",
            "engine.base_url: must be the address of an API, such as http://host:8000/v1.",
        ),
        (
            "engine: {kind: openai, base_url: 'http://me:key@host/v1'}",
            "engine.base_url: must not hold a password: name the variable that holds the key in api_key_env.",
        ),
        (
            "engine: {kind: openai, base_url: 'http://host/v1', in_flight: 0}",
            "engine.in_flight: input should be greater than or equal to 1 (it is 0).",
        ),
        ("sampling: {seed: often}", "sampling.seed: input should be a valid integer (it is 'often')."),
        (ASKED.format("shots: some"), "prompt.shots: input should be a valid integer, or 'all' (it is 'some')."),
        (ASKED.format("examples: 5"), "prompt.examples: input should be a valid list, or a valid string (it is 5)."),
        (
            ASKED.format("examples: [5]"),
            "prompt.examples.0: input should be a section with the fields input, output (it is 5).",
        ),
        (
            "match: {terms: [term], concept: term, where: {term: {a: b}}}",
            (
                "match.where.term: input should be a valid string, or a valid integer, or a valid number, "
                "or a valid boolean, or a valid list."
            ),
        ),
        (
            "match: {terms: [term], concept: term, where: {term: [[a]]}}",
            "match.where.term.0: input should be a valid string, or a valid integer, or a valid number, or a valid boolean.",
        ),
    ],
)
def test_one_wrong_value_is_one_problem(line: str, sentence: str) -> None:
    """Whatever kinds a value may be of, a wrong one is told in one sentence, at the place that is wrong."""
    assert problems(SMALLEST + line) == [f"line 3: {sentence}"]


TEMPLATES = [
    ("{{ term", "prompt.template, line 1: unexpected end of template"),
    ("{{ term | nosuch }}", "prompt.template, line 1: No filter named 'nosuch'."),
    ("{{ term.__class__ }}", "prompt.template: __class__ is an internal name of Python, which a template may not use."),
    ("hello", "prompt.template: uses no column, so every row would be the same question: write {{ column }}."),
]


@pytest.mark.parametrize(("template", "sentence"), TEMPLATES)
def test_a_template_that_cannot_be_used_is_reported_with_its_line(template: str, sentence: str) -> None:
    """A job file that is well-formed but for its template is refused when it is read, with the template's line."""
    [problem] = problems(f'{SMALLEST}prompt:\n  system: x\n  template: "{template}"\nmodel: {{id: m}}\n')
    assert problem.startswith(f"line 5: {sentence}")


@pytest.mark.parametrize(("template", "sentence"), TEMPLATES)
def test_a_template_is_checked_whatever_else_is_invalid(template: str, sentence: str) -> None:
    """Faults of the template are reported together with those of its own section and of others."""
    text = f'{SMALLEST}keep_versions: 0\nprompt:\n  shots: -1\n  template: "{template}"\n'
    found = problems(text)
    assert [problem.split(": ")[:2] for problem in found[:2]] == [
        ["line 3", "keep_versions"],
        ["line 5", "prompt.shots"],
    ]
    assert len(found) == 3
    assert found[2].startswith(f"line 6: {sentence}")


def test_examples_are_checked_when_the_file_is_read() -> None:
    """Too many shots and an example that does not fit the template are reported at once, each with its line."""
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
        "line 8: prompt.shots: is 3, but the job has only 2 examples.",
        "line 10: sampling.top_p: input should be less than or equal to 1 (it is 2).",
    ]


def test_examples_must_be_answers_that_the_job_allows() -> None:
    """What no answer can look like is told with its line, also of examples that are not shown."""
    text = """\
prompt:
  template: "{{ term }}"
  shots: 1
  examples:
    - {input: {term: a}, output: "Yes"}
    - input: {term: b}
      output: "yes"
model: {id: org/name}
output: {type: choice, choices: ["Yes", "No"]}
"""
    assert problems(SMALLEST + text) == [
        "line 9: prompt.examples, number 2: output is yes, which is not one of output.choices: write Yes.",
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
    """A required field that is absent is reported where it should be."""
    assert problems("description: nothing else\n") == ["line 1: input: is missing.", "line 1: name: is missing."]
    assert problems("name: shop\ninput:\n  path: q.parquet\n") == ["line 2: input.key: is missing."]


def test_a_field_that_stands_twice_is_refused() -> None:
    """Of two fields with one name neither wins in silence, at any depth."""
    assert problems(f"{SMALLEST}name: other\n") == ["line 3: not valid YAML: name appears a second time"]
    nested = f"{SMALLEST}gate:\n  coverage: 0.9\n  failures: 0.1\n  coverage: 0.1\n"
    assert problems(nested) == ["line 6: not valid YAML: coverage appears a second time"]


@pytest.mark.parametrize("text", ["", "# only a comment\n", "- name: shop\n", "shop\n", "5\n", "null\n"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    """A list, a word or nothing at all is reported what a job file begins with."""
    assert problems(text) == ["line 1: a job file is a mapping that begins with name: …"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("cache: 3", ["cache: input should be a section with the fields max_age (it is 3)."]),
        (
            "on_errors: never",
            ["on_errors: input should be a section with the fields stop_at, after, or 'continue' (it is 'never')."],
        ),
        ("on_errors: {stop_at: 0}", ["on_errors.stop_at: input should be greater than 0 (it is 0)."]),
        ("on_errors: {afer: 3}", ["on_errors.afer: there is no such field; did you mean after?"]),
    ],
)
def test_a_section_that_is_none_is_told_its_fields(line: str, said: list[str]) -> None:
    """Where a section is wanted, its fields are named, and so is what may stand in its place."""
    assert problems(SMALLEST + line) == [f"line 3: {sentence}" for sentence in said]


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
        ("name: shop\nkeep_versions: !!int five\n", "line 1: "),
        ("name: shop\ndescription: be\x07ll\n", "line 2: "),
    ],
)
def test_invalid_yaml_is_reported_with_its_line(text: str, line: str) -> None:
    """What is no YAML, or YAML that builds more than plain values, is one sentence and no traceback."""
    [problem] = problems(text)
    assert problem.startswith(f"{line}not valid YAML: ")


@pytest.mark.parametrize("name", ["Shop", "1shop", "", "a b", "a" * 65, "../shop", "sh\u00f6p", "_shop"])
def test_a_name_that_could_be_no_folder_is_refused(name: str) -> None:
    """A job's name is lower case, short, and safe as the name of a folder."""
    [problem] = problems(f"name: '{name}'\ninput: {{path: q, key: [k]}}\n")
    assert problem.startswith("line 1: name: ")


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("{kind: ray}", "engine.address: is missing"),
        ("{kind: ray, address: nowhere}", "engine.address: must be auto, local, or host:port of the cluster's head"),
        ("{kind: ray, address: 'ray://a:10001'}", "engine.address: must be auto, local, or host:port of the cluster's"),
        ("{kind: ray, address: 'a:0'}", "engine.address: must be auto, local, or host:port of the cluster's head"),
        ("{kind: ray, address: auto, cpus: 2, tensor_parallel: 2}", "engine: tensor_parallel is of GPUs: leave it out"),
        ("{kind: ray, address: auto, replicas: 0}", "engine.replicas: input should be greater than or equal to 1"),
    ],
)
def test_an_engine_on_a_cluster_must_name_it(engine: str, said: str) -> None:
    """And says in the words of the job file what is wrong with it."""
    [problem] = problems(f"{SMALLEST}engine: {engine}\n")
    assert problem.startswith(f"line 3: {said}")
