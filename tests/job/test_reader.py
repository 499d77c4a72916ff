"""The job file: found, read, and kept as it was written."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from batchinfer.errors import SpecError, UsageError
from batchinfer.job import reader
from batchinfer.job.engine_spec import VllmSpec
from batchinfer.prompting.output import SplitStep
from batchinfer.versions.keep import Keep
from tests.job.files import ASKING, SMALLEST, problems, write_job

EXAMPLE_JOBS = sorted((Path(__file__).parents[2] / "jobs").glob("*/job.yaml"))

# What is read.


def test_name_and_input_are_enough() -> None:
    """A job of two fields is valid: it has only imported answers, and everything else has its default."""
    spec = reader.parse(SMALLEST, "job.yaml")
    assert (spec.name, spec.input.path, spec.input.key) == ("shop", "queries.parquet", ["term"])
    assert (spec.prompt, spec.model, spec.match, spec.schedule) == (None, None, None, None)
    assert (spec.on_failure, spec.keep, spec.gate.coverage, spec.gate.failures) == ("keep", Keep(5, 30), 0.95, 0.05)


LATER = """\
match: {terms: [prediction, term], concept: term, language: term, where: {prediction: [EU, US]}, min_score: 0.5}
serve: {max_age: 15m}
schedule: {cron: "0 3 * * 1", timezone: Europe/Berlin}
keep_versions: 2
cache: {max_age: 2w}
engine: {replicas: 2, tensor_parallel: 4, stall: 90s}
"""


def test_a_match_section_names_parts_of_the_entries() -> None:
    """Each name that is neither a key column nor within a JSON prediction is reported, with its line."""
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
    """A place in a prediction that cannot be is reported at once, not when the terms are looked for."""
    text = SMALLEST + f"output: {{type: json, schema: {{}}}}\nmatch: {{terms: [{part}], concept: term}}\n"
    with pytest.raises(SpecError, match=r"match\.terms"):
        reader.parse(text, "job.yaml")


@pytest.mark.parametrize("where", ["[]", "1e999", "-1e999", "[1, 1e999]"])
def test_where_names_values_that_there_can_be(where: str) -> None:
    """No list of nothing, and no number that JSON does not have."""
    with pytest.raises(SpecError, match=r"where|line 3: .*1e999 is not a number that can be stored"):
        reader.parse(SMALLEST + f"match: {{terms: [term], concept: term, where: {{term: {where}}}}}\n", "job.yaml")


def test_sections_of_later_work_are_kept() -> None:
    """match, serve and schedule are read and kept as they were written."""
    spec = reader.parse(SMALLEST + LATER, "job.yaml")
    assert spec.match is not None
    assert spec.schedule is not None
    assert spec.match.model_dump() == {
        "terms": ["prediction", "term"], "concept": "term", "language": "term", "everywhere": [],
        "where": {"prediction": ["EU", "US"]}, "min_score": 0.5, "min_length": 2, "stop_terms": [], "overlaps": False,
        "accents": "keep", "most_concepts": "auto", "generic": "report",
    }  # fmt: skip
    assert (spec.schedule.cron, spec.schedule.timezone) == ("0 3 * * 1", "Europe/Berlin")
    assert (spec.serve.max_age, spec.cache.max_age) == (timedelta(minutes=15), timedelta(weeks=2))
    assert isinstance(spec.engine, VllmSpec)
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


@given(st.integers(1, 5200), st.sampled_from("smhdw"))
def test_a_duration_is_a_number_and_a_unit(number: int, unit: str) -> None:
    """Each unit is worth its seconds, and what is written from a duration is read as the same."""
    seconds = number * {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[unit]
    spec = reader.parse(f"{SMALLEST}cache: {{max_age: {number}{unit}}}\n", "job.yaml")
    assert spec.cache.max_age == timedelta(seconds=seconds)
    assert spec.model_dump(mode="json")["cache"]["max_age"] == f"{seconds}s"


@pytest.mark.parametrize("duration", ["400000w", "5218w", "36501d", "9" * 100 + "s", "9" * 5000 + "s"])
def test_a_duration_has_an_end(duration: str) -> None:
    """One of more than a hundred years is a fault of the file, with its line."""
    with pytest.raises(SpecError, match=r"cache.max_age: must be at most a hundred years \(36500d\)"):
        reader.parse(f"{SMALLEST}cache: {{max_age: {duration}}}\n", "job.yaml")


@pytest.mark.parametrize("text", ["60", "1.5h", "5y", "-1d", "d", "''", "1 h", "[60s]"])
def test_anything_else_is_no_duration(text: str) -> None:
    """A number without a unit, or of an unknown one, is refused with examples of what is right."""
    [problem] = problems(f"{SMALLEST}serve: {{max_age: {text}}}\n")
    assert problem == "line 3: serve.max_age: must be a number and a unit, such as 60s, 15m, 12h, 7d or 2w."


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
    with pytest.raises(UsageError, match="is not a job file: it is not UTF-8 text: ") as caught:
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
