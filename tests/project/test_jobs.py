"""The example jobs on vaccines: their lists, their prompts, and what their match sections find."""

from __future__ import annotations

import csv
import json
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from jsonschema import Draft202012Validator

from batchinfer.core.home import JobData
from batchinfer.core.records import Generation, Prediction
from batchinfer.engines.pool import EnginePool
from batchinfer.inputs.upstream import Upstream
from batchinfer.job import reader
from batchinfer.job.reader import Job
from batchinfer.pipeline.publish import publish
from batchinfer.pipeline.run import run
from batchinfer.planning.prepare import Options
from batchinfer.prompting.output import OutputSpec
from batchinfer.prompting.parse import Parser
from batchinfer.prompting.spec import Example
from batchinfer.publish.golden_texts import read_golden_texts
from batchinfer.review import predictions
from batchinfer.review.allowed import Allowance
from batchinfer.versions import folders
from batchinfer.versions.snapshot import Snapshot
from tests.factories import Quiet, write
from tests.tiny import RecordingConsole

JOBS = Path(__file__).parents[2] / "jobs"
SYNONYMS, CHECK, LIKELIHOOD = "vaccine_synonyms", "vaccine_synonyms_check", "vaccine_synonyms_likelihood"
MAKE: dict[str, Any] = runpy.run_path(str(JOBS / SYNONYMS / "make_queries.py"))
JUDGE: dict[str, Any] = runpy.run_path(str(JOBS / CHECK / "judge.py"))


def job(name: str) -> Job:
    return reader.load(str(JOBS / name), {})


def examples(name: str) -> list[Example]:
    """The few-shot examples of a job."""
    prompt = job(name).spec.prompt
    assert prompt is not None
    assert isinstance(prompt.examples, list)
    return prompt.examples


@pytest.mark.parametrize("folder", sorted(path.parent for path in JOBS.glob("*/job.yaml")), ids=lambda path: path.name)
def test_every_job_can_be_read(folder: Path) -> None:
    """It is called as its folder is, and says in a README and in the one of the project what it is."""
    assert reader.load(str(folder), {}).name == folder.name
    assert (folder / "README.md").read_text(encoding="utf-8").startswith(f"# {folder.name}\n")
    assert f"`{folder.name}`" in (JOBS.parent / "README.md").read_text(encoding="utf-8")


def test_the_list_is_as_large_as_it_says() -> None:
    """At least 16 vaccines and platforms, at least 52 languages, each pair once."""
    rows = pq.read_table(JOBS / SYNONYMS / "queries.parquet").to_pylist()
    vaccines, languages = ({row[name] for row in rows} for name in ("vaccine", "language"))
    assert len(vaccines) >= 16
    assert len(languages) >= 52
    assert (
        len(rows) == len({(row["vaccine"], row["language"]) for row in rows}) == len(vaccines) * len(languages) >= 832
    )


@pytest.mark.parametrize("name", ["queries", "golden"])
def test_the_script_makes_the_files_that_are_there(name: str) -> None:
    """The committed files hold what make_queries.py makes."""
    made = MAKE[name]()
    assert made.equals(pq.read_table(JOBS / SYNONYMS / f"{name}.parquet").replace_schema_metadata())


def test_every_language_is_one_with_a_name() -> None:
    """Tags are BCP 47, of languages whose script is known, and no two have one name."""
    import langcodes

    rows = pq.read_table(JOBS / SYNONYMS / "queries.parquet").to_pylist()
    names = {row["language"]: row["language_name"] for row in rows}
    assert all(langcodes.tag_is_valid(tag) and langcodes.Language.get(tag).maximize().script for tag in names)
    assert len(set(names.values())) == len(names)
    assert not any(name.startswith("Unknown") or name in names for name in names.values())


def read(row: dict[str, Any], text: str) -> Any:
    """What the parser of vaccine_synonyms makes of an answer to a row."""
    result = Parser(job(SYNONYMS).spec.output)(Generation(b"k" * 16, text, "stop", 1, 0, 1), row)
    return result.value if isinstance(result, Prediction) else result.reason


def test_each_word_is_written_as_its_language_is() -> None:
    """The word for vaccine is in a script of its language, and not in a mixed one."""
    spec = OutputSpec.model_validate(
        {"type": "json", "schema": {}, "steps": [{"drop_wrong_script": {"language": "language", "mixed": "drop"}}]}
    )
    for tag, word in MAKE["WORDS"].items():
        result = Parser(spec)(Generation(b"k" * 16, json.dumps([word]), "stop", 1, 0, 1), {"language": tag})
        assert isinstance(result, Prediction)
        assert result.value == [word]


@pytest.mark.long
def test_golden_rows_are_rows_that_can_be_answered() -> None:
    """Each golden key is in the list, is shown in no example, and its answer passes the steps and the schema unchanged."""
    listed = {(row["vaccine"], row["language"]) for row in MAKE["queries"]().to_pylist()}
    shown = {(example.input["vaccine"], example.input["language"]) for example in examples(SYNONYMS)}
    rows = MAKE["golden"]().to_pylist()
    assert len(rows) >= 20
    for row in rows:
        assert (row["vaccine"], row["language"]) in listed - shown
        assert read(row, row["answer"]) == json.loads(row["answer"])


def test_examples_are_answers_as_the_job_wants_them() -> None:
    """Each example obeys the schema and keeps all of its names through the steps; together they show several scripts."""
    output = job(SYNONYMS).spec.output
    assert output.schema_ is not None
    for example in examples(SYNONYMS):
        value = json.loads(example.output)
        Draft202012Validator(output.schema_).validate(value)
        assert read(example.input, example.output) == value
    text = "".join(example.output for example in examples(SYNONYMS))
    for script in ("[a-z]", "[а-я]", "[\u0600-\u06ff]", "[\u0900-\u097f]", "[\u4e00-\u9fff]", "[\uac00-\ud7a3]"):
        assert re.search(script, text)


def test_the_steps_drop_what_real_models_add() -> None:
    """Echoes, refusals, repetitions and other languages' scripts go; names stay."""
    row = {"vaccine": "Sputnik V", "language": "ru", "language_name": "Russian"}
    names = [
        "Sputnik V",
        "",
        "Ъ",
        "Спутник V",
        "N/A",
        "I’m sorry, I can’t.",
        "I can’t say.",
        " Спутник  V ",
        "Gam-COVID-Vac",
        "疫苗",
        "Гам-КОВИД-Вак",
    ]
    assert read(row, json.dumps({"names": names})) == {"names": ["Спутник V", "Гам-КОВИД-Вак"]}
    assert read(row, '{"names": ["Sputnik V", "N/A", "Sorry, I do not know."]}') == {"names": []}
    assert read(row, '{"names": []}') == "empty"


def test_the_check_asks_of_terms_that_are_broader_or_of_another_language() -> None:
    """Its examples have both answers, and each is one of the choices."""
    answers = [example.output for example in examples(CHECK)]
    assert set(answers) == {"Yes", "No"} == set(job(CHECK).spec.output.choices or [])
    refused = {example.input["term"] for example in examples(CHECK) if example.output == "No"}
    assert {"virus", "vaccine", "DNA-Impfstoff"} <= refused


@pytest.mark.parametrize("name", [SYNONYMS, CHECK, LIKELIHOOD])
def test_no_example_is_of_a_vaccine_in_the_list(name: str) -> None:
    """So that none can be a row whose answer the model only has to copy, whatever the lists hold."""
    assert not {example.input["vaccine"] for example in examples(name)} & {*MAKE["VACCINES"], *MAKE["PLATFORMS"]}


def by_imports(name: str, folder: Path) -> Job:
    """An example job that lives by imports alone, in a folder of its own."""
    place = shutil.copytree(JOBS / name, folder / name)
    content = yaml.safe_load((place / "job.yaml").read_text(encoding="utf-8"))
    kept = {part: section for part, section in content.items() if part not in ("prompt", "model", "gate")}
    kept["output"].pop("steps", None)
    (place / "job.yaml").write_text(yaml.safe_dump(kept | {"gate": {"coverage": 0}}), encoding="utf-8")
    return reader.load(str(place), {})


def test_the_texts_of_the_check_are_of_its_vaccines(tmp_path: Path) -> None:
    """What they mention is in the list, in languages of the list, and some mention nothing."""
    texts = read_golden_texts(JOBS / CHECK / "texts.csv", tmp_path)
    assert len(texts) >= 50
    assert {concept for text in texts for concept in text.concepts} <= {*MAKE["VACCINES"], *MAKE["PLATFORMS"]}
    assert {text.language for text in texts} <= MAKE["WORDS"].keys()
    assert sum(not text.concepts for text in texts) >= 10


@pytest.mark.long
def test_a_vaccine_is_found_by_its_own_name(tmp_path: Path) -> None:
    """The lists leave out the name that was asked about, but a text that has it, or an alias, is recognised once the check is served."""
    lists, check = by_imports(SYNONYMS, tmp_path), by_imports(CHECK, tmp_path)
    homes = [JobData(tmp_path / "home", name) for name in (SYNONYMS, CHECK)]
    key = {"vaccine": ["Moderna", "mRNA vaccine"], "language": ["en", "en"]}
    names = [json.dumps({"names": [name]}) for name in ("Spikevax", "RNA jab")]
    predictions.import_predictions(
        lists, homes[0], write(tmp_path / "lists.parquet", key | {"prediction": names}), "a test"
    )
    publish(lists, homes[0], Options(), Quiet())
    terms = key | {"term": ["Spikevax", "RNA jab"], "prediction": ["Yes", "Yes"]}
    predictions.import_predictions(check, homes[1], write(tmp_path / "terms.parquet", terms), "a test")
    assert publish(check, homes[1], Options(), Quiet()).version == 1
    with Snapshot(folders.folder_of(homes[1], 1)) as version:
        found = version.matcher.find("Moderna is an mRNA vaccine, sold as Spikevax.")
    assert [(match.text, match.names[0].concept) for match in found] == [
        ("Moderna", "Moderna"), ("mRNA vaccine", "mRNA vaccine"), ("Spikevax", "Moderna"),
    ]  # fmt: skip


@pytest.mark.long
def test_every_own_name_is_found_in_every_language(tmp_path: Path) -> None:
    """All 21, and an alias, beside that language's word for vaccine, with the language named or not, and glued to it."""
    names = [*MAKE["VACCINES"], *MAKE["PLATFORMS"]]
    assert (len(names), len(MAKE["WORDS"])) == (21, 57)
    lists, check = by_imports(SYNONYMS, tmp_path), by_imports(CHECK, tmp_path)
    homes = [JobData(tmp_path / "home", name) for name in (SYNONYMS, CHECK)]
    key = {"vaccine": names, "language": ["en"] * len(names)}
    terms = [f"alternative {number}" for number in range(len(names))]
    rows = key | {"prediction": [json.dumps({"names": [term]}) for term in terms]}
    predictions.import_predictions(lists, homes[0], write(tmp_path / "lists.parquet", rows), "a test")
    publish(lists, homes[0], Options(), Quiet())
    rows = key | {"term": terms, "prediction": ["Yes"] * len(names)}
    predictions.import_predictions(check, homes[1], write(tmp_path / "terms.parquet", rows), "a test")
    publish(check, homes[1], Options(), Quiet())
    with Snapshot(folders.folder_of(homes[1], 1)) as version:
        for tag, word in MAKE["WORDS"].items():
            for name in [*names, "mRNA-1273"]:
                for languages in ([], [tag], ["en"]):
                    found = version.matcher.find(f"{word}: {name} {word}", languages=languages)
                    there = {each.text: {one.concept for one in each.names} for each in found}
                    assert there.get(name) == {"Moderna" if name == "mRNA-1273" else name}, (tag, name, languages)
        for text, tag in (
            ("Moderna疫苗", "zh-Hans"),
            ("接種Moderna疫苗", "zh-Hant"),
            ("Moderna백신", "ko"),
            ("Modernaワクチン", "ja"),
        ):
            for languages in ([], [tag]):
                [brand] = version.matcher.find(text, languages=languages)
                assert (brand.text, brand.names[0].concept) == ("Moderna", "Moderna")


@pytest.mark.parametrize(
    ("vaccine", "language", "term", "verdict"),
    [
        ("Moderna", "de", "Moderna-Impfstoff", "accept"),
        ("Moderna", "fr", "Vaccin  MODERNA", "accept"),
        ("Moderna", "fr", "vaccin de Moderna", "accept"),
        ("Moderna", "de", "Impfstoff de Moderna", "reject"),
        ("Moderna", "bg", "ваксина Moderna", "accept"),
        ("Moderna", "ja", "Modernaワクチン", "accept"),
        ("Moderna", "ja", "モデルナ", "accept"),
        ("Moderna", "es", "Spikevax", "accept"),
        ("mRNA vaccine", "de", "mRNA-Impfstoff", "accept"),
        ("mRNA vaccine", "de", "mRNA", "reject"),
        ("inactivated vaccine", "de", "Inactivated vaccine", "accept"),
        ("inactivated vaccine", "de", "Impfstoff inactivated vaccine", "reject"),
        ("Moderna", "de", "Impfstoff", "reject"),
        ("Moderna", "de", "vaccin Moderna", "reject"),
        ("Janssen", "de", "Moderna-Impfstoff", "reject"),
        ("Moderna", "xx", "Moderna", "reject"),
        ("Moderna", "en", "'-Moderna", "reject"),
    ],
)
def test_the_rule_that_stands_in_for_people(
    tmp_path: Path, vaccine: str, language: str, term: str, verdict: str
) -> None:
    """A name alone or beside its language's word for vaccine is right; what people marked, and every other cell, stays."""
    path = tmp_path / "sample.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["vaccine", "language", "value", "verdict", "check"])
        rows.writerows([[vaccine, language, term, "", "7"], [vaccine, language, term, "correct", "8"]])
    assert JUDGE["mark"](path) == (1, int(verdict == "accept"))
    with path.open(encoding="utf-8-sig", newline="") as file:
        marked = list(csv.reader(file))
    assert marked[1:] == [[vaccine, language, term, verdict, "7"], [vaccine, language, term, "correct", "8"]]


def test_the_rule_refuses_what_is_no_review(tmp_path: Path) -> None:
    """In a sentence that names the column."""
    path = tmp_path / "texts.csv"
    path.write_text("vaccine,language,term\nModerna,de,Moderna\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="has no column value: it is no CSV that precision --sample or review wrote"):
        JUDGE["mark"](path)


# With the real model.


def borrowed(name: str, folder: Path, **prompt: Any) -> Job:
    """An example job as it is, in a folder of its own; its prompt's fields can be replaced."""
    place = shutil.copytree(JOBS / name, folder / name)
    content = yaml.safe_load((place / "job.yaml").read_text(encoding="utf-8"))
    content["prompt"] |= prompt
    (place / "job.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return reader.load(str(place), {})


@pytest.fixture
def root(tmp_path: Path, models: Path) -> Path:
    """A data folder with the converted model."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "models").symlink_to(models)
    return folder


@pytest.mark.slow
def test_vaccine_synonyms_runs_with_the_bundled_model(
    root: Path, tmp_path: Path, engine: EnginePool, console: RecordingConsole
) -> None:
    """The smoke test: every answer is a list within the schema or a failure with its reason; nothing is published."""
    job = borrowed(SYNONYMS, tmp_path, shots=1)  # the tests' engine has a small window
    data = JobData(root, SYNONYMS)
    report = run(job, data, Options(limit=8, publish=False), console, engine)
    assert (report.status, report.version) == ("done", None)
    assert report.generated + report.failed == 8
    assert report.generated > 0
    assert not data.versions.exists()


@pytest.mark.slow
def test_the_check_runs_on_a_published_list(
    root: Path, tmp_path: Path, engine: EnginePool, console: RecordingConsole
) -> None:
    """From imported lists to a served version of the check: every term is asked once, and a matcher is made."""
    lists = {"names": ["Moderna-Impfstoff", "Spikevax"]}, {"names": ["мРНК-вакцина", "virus"]}
    rows = {
        "vaccine": ["Moderna", "mRNA vaccine"], "language": ["de", "ru"], "prediction": [json.dumps(value) for value in lists],
    }  # fmt: skip
    first, data = borrowed(SYNONYMS, tmp_path), JobData(root, SYNONYMS)
    write(
        first.folder / "queries.parquet",
        {name: rows[name] for name in ("vaccine", "language")}
        | {"language_name": ["German", "Russian"], "word": ["Impfstoff", "вакцина"], "aliases": [["mRNA-1273"], []]},
    )
    write(first.folder / "golden.parquet", {"vaccine": ["Moderna"], "language": ["de"], "answer": ['"Spikevax"']})
    predictions.import_predictions(first, data, write(tmp_path / "lists.parquet", rows), "a test", [Allowance.VALUES])
    assert publish(first, data, Options(), Quiet()).version == 1

    second, checked = borrowed(CHECK, tmp_path, shots=2), JobData(root, CHECK)
    report = run(second, checked, Options(), console, engine)
    assert (report.status, report.upstream) == ("done", Upstream(SYNONYMS, 1))
    assert (report.rows, report.generated, report.version) == (4, 4, 1)
    with Snapshot(folders.folder_of(checked, 1)) as version:
        body = json.loads(version.get({"vaccine": "Moderna", "language": "de", "term": "Spikevax"}) or "null")
        found = {name.term for match in version.matcher.find("Спросили про Spikevax и virus") for name in match.names}
    assert body["prediction"] in ("Yes", "No")
    assert found <= {"Spikevax", "virus"}
    assert ("Spikevax" in found) == (body["prediction"] == "Yes" and body["score"] >= 0.8)
