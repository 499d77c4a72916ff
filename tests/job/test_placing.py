"""Errors that a field of the job file is to blame for, however late they are found: each with the file and the line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from batchinfer.errors import BatchinferError, InputError, ModelError, NotFound, SpecError, UsageError
from batchinfer.job import reader
from batchinfer.job.reader import Job, placing

TEXT = """\
name: shop
input:
  path: queries.parquet
  key: [term, language]
prompt:
  template: "{{ term }}"
  examples: examples.parquet
model:
  id: org/name
audit:
  slices:
    - language
"""


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "job.yaml").write_text(TEXT, encoding="utf-8")
    return reader.load(str(tmp_path / "job.yaml"), {})


def placed(job: Job, error: BatchinferError) -> BatchinferError:
    """The error as it comes out."""
    with pytest.raises(BatchinferError) as raised, placing(job), placing(job):  # a second time changes nothing
        raise error
    return raised.value


@pytest.mark.parametrize("kind", [InputError, ModelError, UsageError, NotFound])
@pytest.mark.parametrize(
    ("field", "place"),
    [
        (("model", "id"), "line 9: model.id: "),
        (("model", "adapter"), "line 8: model.adapter: "),
        (("engine", "replicas"), "line 1: engine.replicas: "),
        (("input", "key", 1), "line 4: input.key.1: "),
        (("audit", "slices", 0), "line 12: audit.slices.0: "),
    ],
)
def test_a_field_is_named_with_its_line(
    job: Job, kind: type[BatchinferError], field: tuple[str | int, ...], place: str
) -> None:
    """The error stays of its kind, and machines get file and line, too; a field that is not written has its section's line."""
    found = placed(job, kind("There is no such thing", fix="name another.", field=field))
    assert type(found) is kind
    assert str(found) == f"{job.path}: {place}there is no such thing: name another."
    error = found.to_json()["error"]
    assert (error["message"], error["fix"]) == (str(found), "Name another.")
    [problem] = error["problems"]
    assert (problem["file"], f"line {problem['line']}: {problem['message']}") == (
        str(job.path),
        f"{place}there is no such thing: name another.",
    )


@pytest.mark.parametrize(
    ("sentence", "line"),
    [
        ("prompt.examples, number 3: the template needs a value that is not there: 'x' is undefined.", 7),
        ("prompt.shots: is 3, but the job has only 2 examples.", 5),
        ("prompt.template, line 1: unexpected end of template", 6),
    ],
)
def test_a_fault_that_is_found_late_has_its_line(job: Job, sentence: str, line: int) -> None:
    """Such as of examples in a file, which are counted once they are read."""
    found = placed(job, SpecError(str(job.path), [sentence]))
    assert isinstance(found, SpecError)
    assert found.problems == [f"line {line}: {sentence}"]


def test_what_the_file_does_not_say_is_not_blamed_on_it(job: Job) -> None:
    """An evaluation asks other models, and a template may lie in a file of its own."""
    assert job.spec.model is not None
    other = replace(job, spec=job.spec.model_copy(update={"model": job.spec.model.model_copy(update={"id": "./gone"})}))
    said = "There is no model in ./gone"
    assert str(placed(other, ModelError(said, field=("model", "id")))) == said
    assert str(placed(job, InputError("The list is empty."))) == "The list is empty."
    assert placed(job, SpecError("other.txt", ["prompt.template: uses no column"])).listed[0].line is None
