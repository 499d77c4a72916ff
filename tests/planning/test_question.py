"""A job's question: its examples, what it is known by, and the work that it gives an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batchinfer.core.records import Message
from batchinfer.engines.protocol import Task
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import InputError, SpecError
from batchinfer.planning import question as questions
from batchinfer.planning.question import Question
from tests.factories import World, model_job, write
from tests.tiny import make_job, token

EXAMPLES = [{"input": {"text": "up"}, "output": "Yes"}, {"input": {"text": "down"}, "output": "No"}]
CHOICE = {"type": "choice", "choices": ["Yes", "No"]}
NAMES = {"type": "object", "properties": {"n": {"type": "integer"}}}


def question(world: World, **options: Any) -> Question:
    return questions.make(world.job, world.data, **options)


def job(folder: Path, **sections: Any) -> World:
    return model_job(folder, {"id": [1], "text": ["a"]}, **sections)


def test_the_same_question_is_known_by_the_same_hash(tmp_path: Path) -> None:
    """The fingerprint is that of the question alone: neither the list nor how answers are read is in it."""
    world = job(tmp_path)
    made = question(world)
    assert len(made.fingerprint) == 16
    world.rows({"id": [2], "text": ["b"]})
    stripped = world.changed(output={"type": "text", "steps": ["strip"]})
    again = question(stripped)
    assert again.fingerprint == made.fingerprint
    assert again.parser_id != made.parser_id
    assert question(world.changed(prompt={"template": "{{ text }}?"})).fingerprint != made.fingerprint


def test_kinds_of_columns_are_part_of_it(tmp_path: Path) -> None:
    """1 and 1.0 make different prompts, so a column of another kind makes another question."""
    made = question(job(tmp_path))
    integers, numbers = made.of_kinds({"text": "integer"}), made.of_kinds({"text": "number"})
    assert len({made.fingerprint, integers.fingerprint, numbers.fingerprint}) == 3
    assert integers.of_kinds({"text": "number"}).fingerprint == numbers.fingerprint
    assert integers.provenance(7).fingerprint == integers.fingerprint
    assert (integers.provenance(7).run_id, integers.provenance(7).model) == (7, made.identity.label)


@pytest.mark.parametrize("shots", [0, 1, "all"])
def test_another_number_of_examples_may_be_tried(tmp_path: Path, shots: int | str) -> None:
    """`shots` takes the place of the job file's number, and makes another question."""
    world = job(tmp_path, prompt={"template": "{{ text }}", "examples": EXAMPLES, "shots": 2}, output=CHOICE)
    tried, own = question(world, shots=shots), question(world)
    count = 2 if shots == "all" else int(shots)
    assert [content for role, content in tried.template.messages({"text": "x"}) if role == "assistant"] == [
        example["output"] for example in EXAMPLES[:count]
    ]
    assert (tried.fingerprint == own.fingerprint) == (count == 2)


SPACED: list[dict[str, Any]] = [
    {"input": {"text": "up"}, "output": '{"names": ["high", "on top"]}'},
    {"input": {"text": "down"}, "output": '{ "names": ["low"] }'},
]
LISTS = {
    "type": "object",
    "properties": {"names": {"type": "array", "items": {"type": "string"}}},
    "required": ["names"],
}


def test_no_prompt_leads_off_the_form_of_its_answers(tmp_path: Path) -> None:
    """A model that runs on inside a text once it was shown a space that its grammar forbids never does: none is shown.

    So 309 of 655 names of a vaccine were made: `["a", "b"]` was shown, and `"a` was followed by `]}Human: What is`.
    """

    def says(messages: tuple[Message, ...]) -> str:
        spaced = any(role == "assistant" and ('", "' in text or '": ' in text) for role, text in messages)
        return '{"names":["a]}Human: What is"]}' if spaced else '{"names":["a"]}'

    prompt = {"template": "{{ text }}", "examples": SPACED}
    world = job(tmp_path, prompt=prompt, output={"type": "json", "schema": LISTS})
    made = question(world)
    assert [says(made.template.messages({"text": f"row {n}"})) for n in range(655)].count('{"names":["a"]}') == 655
    compact = [{**each, "output": each["output"].replace(" ", "").replace("ontop", "on top")} for each in SPACED]
    assert question(world.changed(prompt=prompt | {"examples": compact})).fingerprint == made.fingerprint


def test_examples_in_a_file_must_be_answers(tmp_path: Path) -> None:
    """One that no answer can look like is named by its number."""
    world = job(tmp_path, prompt={"template": "{{ text }}", "examples": "examples.parquet"}, output=CHOICE)
    write(world.job.folder / "examples.parquet", pa.Table.from_pylist([EXAMPLES[0], EXAMPLES[1] | {"output": "no"}]))
    with pytest.raises(
        SpecError, match=r"prompt.examples, number 2: output is no, which is not one of output.choices: write No"
    ):
        question(world)


def test_examples_may_lie_in_a_file(tmp_path: Path) -> None:
    """Examples out of a Parquet file are those that a job file would have, and make the same question."""
    world = job(tmp_path, prompt={"template": "{{ text }}", "examples": EXAMPLES, "shots": 2})
    inline = question(world)
    write(world.job.folder / "examples.parquet", pa.Table.from_pylist(EXAMPLES))
    filed = question(world.changed(prompt={"template": "{{ text }}", "examples": "examples.parquet", "shots": 2}))
    assert filed.fingerprint == inline.fingerprint


@pytest.mark.parametrize(
    "columns",
    [None, {"input": ["x"], "output": ["y"]}, {"output": ["y"]}, {"input": [{"text": "x"}], "output": [None]}],
    ids=["no file", "texts as input", "no input", "no output"],
)
def test_examples_that_will_not_do(tmp_path: Path, columns: dict[str, Any] | None) -> None:
    """A file that is missing or holds something else is refused with the columns that it must have."""
    world = job(tmp_path, prompt={"template": "{{ text }}", "examples": "examples.parquet", "shots": 1})
    if columns is not None:
        write(world.job.folder / "examples.parquet", columns)
    with pytest.raises(
        InputError,
        match=r"job\.yaml: line \d+: prompt\.examples: /.*examples\.parquet must be a Parquet file with the columns",
    ):
        question(world)


@pytest.mark.parametrize(
    ("output", "constraint"),
    [
        ({"type": "text"}, None),
        ({"type": "json", "schema": NAMES}, ("json", NAMES)),
        ({"type": "regex", "pattern": "[0-9]+"}, ("regex", "[0-9]+")),
    ],
)
def test_what_an_engine_must_obey(tmp_path: Path, tiny: Path, output: dict[str, Any], constraint: Any) -> None:
    """Texts are free, JSON obeys its schema and a pattern itself; sampling is the job's."""
    own, data = make_job(tmp_path / "shop", {"text": ["a"]}, tiny, output=output, sampling={"max_tokens": 9})
    made = questions.make(own, data)
    task = made.task(made.scoring(Tokenizer(str(tiny), None, {})))
    assert (task.constraint, task.score_tokens, task.sampling["max_tokens"]) == (constraint, None, 9)


def test_a_choice_is_scored(tmp_path: Path, tiny: Path) -> None:
    """The first tokens of the choices are scored, and nothing is sampled; where they are the same, whole choices are."""
    own, data = make_job(tmp_path / "shop", {"text": ["a"]}, tiny, output=CHOICE)
    tokenizer = Tokenizer(str(tiny), None, {})
    made = questions.make(own, data)
    assert made.task(made.scoring(tokenizer)) == Task({"temperature": 0.0}, score_tokens=(token("Y"), token("N")))
    alike, data = make_job(tmp_path / "alike", {"text": ["a"]}, tiny, output=CHOICE | {"choices": ["Yes", "Yawn"]})
    made = questions.make(alike, data)
    assert made.task(made.scoring(tokenizer)) == Task({"temperature": 0.0}, score_continuations=True)


def test_what_an_engine_loads(tmp_path: Path) -> None:
    """The model's own settings go to the engine as the job file has them."""
    world = job(tmp_path, model={"id": "./model", "dtype": "float32", "options": {"max_model_len": 512}})
    config = question(world).engine_config("/weights")
    assert (config.model, config.dtype, config.options) == ("/weights", "float32", {"max_model_len": 512})
    assert (config.adapter, config.revision) == (None, None)
