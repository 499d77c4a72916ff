"""Checks across the fields and sections of a job file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.errors import SpecError
from batchinfer.job import reader
from batchinfer.job.spec import JobSpec
from tests.job.files import ASKING, SMALLEST, problems

CASCADE = "prompt: {template: '{{ term }}'}\noutput: {type: choice, choices: [a, b]}\n"
CASCADES = [
    (
        "prompt: {template: '{{ term }}'}\nmodel: {id: s, cascade: {large: {id: l}}}",
        "model.cascade: the small model's scores say where it is sure, and only choices have scores: it needs output.type choice.",
    ),
    (
        CASCADE + "model: {id: s, adapter: a, cascade: {large: {id: s, adapter: a}}}",
        "model.cascade.large: it is the same model as model.id: name another one, or an adapter.",
    ),
    (CASCADE + "model: {id: s, cascade: {}}", "model.cascade.large: is missing."),
    (
        CASCADE + "model: {id: s, cascade: {large: {id: l}, agree: 1}}",
        "model.cascade.agree: input should be less than or equal to 0.999",
    ),
    (
        CASCADE + "model: {id: s, cascade: {large: {id: l, cascade: {large: {id: m}}}}}",
        "model.cascade.large.cascade: there is no such",
    ),
    (
        CASCADE + "model: {id: s, cascade: {large: {id: l, options: {dtype: auto}}}}",
        "model.cascade.large.options: dtype is set by model.dtype, not here.",
    ),
    (
        CASCADE.replace("b]", "b], prior: list") + "model: {id: s, cascade: {large: {id: l}}}",
        "output.prior: a prior is of one model, and this job has two: leave it out, or model.cascade.",
    ),
    (
        CASCADE + "model: {id: s, cascade: {large: {id: l}}}\naudit: {swaps: [s.yaml]}",
        "audit.swaps: one model is asked, and this job has two: leave it out, or model.cascade.",
    ),
    (
        CASCADE
        + "model: {id: s, cascade: {large: {id: l}}}\nengine: {kind: openai, base_url: 'http://h/v1', served_model_name: s}",
        "engine.served_model_name: it names one model, and this job has two: leave it out, or model.cascade.",
    ),
    (
        "engine: {kind: openai_batch, base_url: 'http://h/v1'}\ncost: {per_gpu_hour: 1}",
        "cost: it prices devices by the hour, and a batch API is paid by the token: leave it out, and --budget with it.",
    ),
]


@pytest.mark.parametrize(("text", "said"), CASCADES)
def test_two_models_that_cannot_share_a_list(text: str, said: str) -> None:
    """Each fault of a cascade, and of an engine that does not go with it or with a price, has its line and says what to do."""
    [problem] = problems(SMALLEST + text)
    assert re.match(r"line \d+: ", problem)
    assert said in problem


def test_two_models_that_can(tmp_path: Path) -> None:
    """The large one is a model as any, and a job of it alone is at hand."""
    text = SMALLEST + CASCADE + "model: {id: s, options: {seed: 1}, cascade: {large: {id: l, adapter: a}, agree: 0.9}}"
    (tmp_path / "job.yaml").write_text(text, encoding="utf-8")
    job = reader.load(str(tmp_path), {})
    assert job.large is not None
    assert job.large.spec.model is not None
    assert job.large.spec.model.beyond_defaults() == {"id": "l", "adapter": "a"}
    assert job.large.large is None


CROSS = [
    ("output: {type: json}", "output: type: json needs schema."),
    ("output: {type: choice}", "output: type: choice needs choices."),
    ("output: {type: regex}", "output: type: regex needs pattern."),
    ("output: {schema: {}}", "output: schema belongs to type: json, but type is text."),
    ("output: {type: json, schema: {}, choices: [a, b]}", "output: choices belongs to type: choice, but type is json."),
    ("output: {type: json, schema: {}, pattern: a}", "output: pattern belongs to type: regex, but type is json."),
    ("output: {min_mass: 0.5}", "output: min_mass belongs to type: choice."),
    ("output: {normalize: tokens}", "output: normalize belongs to type: choice and type: likelihood."),
    ("output: {type: likelihood}", "output: type: likelihood needs text."),
    ('output: {text: "{{ term }}"}', "output: text belongs to type: likelihood, but type is text."),
    (
        'output: {type: likelihood, text: "{{ term }}", steps: [strip]}',
        "output: steps do not apply to a likelihood: it is a number.",
    ),
    (
        'output: {type: likelihood, text: "{{ term"}',
        "output.text, line 1: unexpected end of template, expected 'end of print statement'.",
    ),
    (
        "output: {type: likelihood, text: same}",
        "output.text: uses no column, so every row would be the same question: write {{ column }}.",
    ),
    (
        "output: {type: choice, choices: [a, b], normalize: tokens, min_mass: 0.5}",
        "output: min_mass needs normalize: none, since what is divided by a length is no probability.",
    ),
    (
        "output: {type: choice, choices: [a, b], steps: [strip]}",
        "output: steps do not apply to a choice: the answer is one of the choices as they stand.",
    ),
    (
        "gate: {calibration: 0.1}",
        "gate.calibration: it is of scores that verdicts have calibrated: add a section calibrate.",
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
        ("key: [k]", "needs one of path, sql and job."),
        ("path: q, job: other, key: [k]", "needs one of path, sql and job."),
        ("path: q, sql: SELECT 1, key: [k]", "needs one of path, sql and job."),
        ("job: other, pick: newest, key: [k]", "pick belongs to path: it chooses among files."),
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
        (
            "{drop_wrong_script: {language: id, mixed: drop}}",
            "output.steps.0: the template does not use the column id, which rows with one answer",
        ),
        ("{dedupe: folds}", "output.steps.0.dedupe: input should be 'folded'"),
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
@pytest.mark.long
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


def refused(lines: str) -> str:
    """Why the smallest job with these lines is refused."""
    with pytest.raises(SpecError) as caught:
        reader.parse(f"{SMALLEST}{lines}\n", "job.yaml")
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    "place",
    [
        "output: {type: regex, pattern: 'PATTERN'}",
        "output: {steps: [strip, {drop: 'PATTERN'}]}",
        "output: {type: json, schema: {type: object, properties: {a: {type: string, pattern: 'PATTERN'}}}}",
        "output: {type: json, schema: {type: object, patternProperties: {? 'PATTERN' : {}}}}",
    ],
)
def test_a_pattern_that_is_too_large_is_refused_with_its_line(place: str) -> None:
    """Wherever one may stand: what no answer could match, and what takes long to compile. Large ones within that are taken."""
    for pattern, said in (
        ("(?:(?:a{1000}){1000}){1000}", "matches no text of less than 1,000,000,000 characters"),
        (
            "|".join(f"w{number}" for number in range(20_000)),
            "has 128,889 characters, and a regular expression may have 65,536",
        ),
    ):
        [problem] = problems(SMALLEST + ASKING + place.replace("PATTERN", pattern))
        assert problem.startswith("line 5: output.")
        assert said in problem
    for pattern in ("(?:a{1,1000}){1,1000}", "|".join(f"w{number}" for number in range(9_000))):
        reader.parse(SMALLEST + ASKING + place.replace("PATTERN", pattern), "job.yaml")


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ("{$ref: '#'}", "refers to #, which leads back to itself without an end"),
        ("{allOf: [{$ref: '#'}]}", "refers to #, which leads back to itself without an end"),
        (
            "{$ref: '#/$defs/a', $defs: {a: {anyOf: [{$ref: '#/$defs/b'}]}, b: {not: {$ref: '#/$defs/a'}}}}",
            "which leads back to itself without an end",
        ),
        ("{items: {if: {$dynamicRef: '#/items'}}}", "refers to #/items, which leads back to itself"),
        ("{$ref: '#/title', title: a}", "refers to #/title, which is not a schema"),
        ("{$dynamicRef: 'http://localhost/s.json'}", "which is not in it, and nothing is fetched"),
        ("{properties: {a: {pattern: '('}}}", "output.schema: "),
        ("{patternProperties: {'(?P<a': {}}}", "output.schema: "),
        ("{pattern: 'a{99999999999}'}", "the repetition number is too large"),
    ],
)
def test_a_schema_that_no_answer_can_be_checked_by_is_refused(schema: str, sentence: str) -> None:
    """References that lead nowhere or round in a circle, and patterns that are none, are found before any row is asked."""
    assert sentence in refused(f"output: {{type: json, schema: {schema}}}")


@pytest.mark.parametrize("pattern", ["a{99999999999}", "(" * 3000 + ")" * 3000])
def test_a_pattern_beyond_all_limits_is_refused(pattern: str) -> None:
    """A pattern that Python cannot hold is refused as one that it cannot read."""
    assert "is not a valid regular expression" in refused(f"output: {{type: regex, pattern: '{pattern}'}}")


SCORED = "output: {type: choice, choices: [Positive, Negative]}\n"


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (SCORED + "eval: {metric: auc}", "line 4: eval.metric: auc is about the score of one choice: name it as eval.positive"),
        (SCORED + "eval: {metric: auc, positive: positive}", "eval.positive: positive is not one of output.choices (Positive, Negative)."),
        ("eval: {metric: auc, positive: Yes}", "eval.positive: Yes is not one of output.choices (output.type is text, which has none)."),
        (SCORED + "eval: {metric: f1}", "eval.metric: f1 compares lists, but output.type is choice"),
        (SCORED + "eval: {metric: contains}", "eval.metric: contains looks for an answer within a prediction"),
        ("eval: {dev: 1}", "eval.dev: input should be less than 1 (it is 1)."),
    ],
)  # fmt: skip
def test_a_metric_that_does_not_fit_the_output(lines: str, sentence: str) -> None:
    """What eval is to measure is held against the output, with its line."""
    assert sentence in refused(lines)
