"""The docs say what is: generated pages are fresh, commands in them parse, examples are valid, links lead somewhere."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
import pytest
import yaml
from jsonschema import Draft202012Validator

from batchinfer.cache.store import Store
from batchinfer.cli.main import COMMANDS, cli
from batchinfer.job import reader

ROOT = Path(__file__).parents[2]
GENERATE: dict[str, Any] = runpy.run_path(str(ROOT / "docs/generate.py"))
TEXTS: dict[str, Any] = GENERATE["TEXTS"]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("jobs/*/README.md")])
JOB_FILES = {path.parent.name: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("jobs/*/job.yaml"))}


def commands_in(page: Path) -> Iterator[str]:
    """The lines of a page's code blocks that call batchinfer, without comments."""
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.removeprefix("$ ").startswith("batchinfer "):
                yield line.removeprefix("$ ")


def check_parses(line: str) -> None:
    """Takes a command line apart as click would, without running it."""
    words = shlex.split(line, comments=True)[1:]
    if words[0] == "--home":
        words = words[2:]
    if words == ["--help"]:
        return
    parent = click.Context(cli, **cli.context_settings)  # commands keep the help option that they had first
    name, command, rest = cli.resolve_command(parent, words)
    assert command is not None
    command.make_context(name, rest, parent=parent)


def test_generated_pages_are_fresh() -> None:
    """Each generated page is what docs/generate.py would write now."""
    stale = [path.name for path, content in GENERATE["pages"]().items() if path.read_text(encoding="utf-8") != content]
    assert not stale, f"run make docs: {', '.join(stale)} would change"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_an_example(name: str) -> None:
    """The example of a command calls that command, and parses."""
    command = TEXTS["commands"][name]
    assert command["example"].startswith(f"batchinfer {name} ")
    assert command["text"].endswith(".")
    check_parses(command["example"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_docs_parse(page: Path) -> None:
    """Every call of batchinfer in a code block is one that the command line understands."""
    for line in commands_in(page):
        try:
            check_parses(line)
        except click.ClickException as exc:
            pytest.fail(f"{page.name}: {line}: {exc.format_message()}")


def test_comparisons_in_the_docs_have_their_examples() -> None:
    """No `eval` in a code block asks for more examples than its job has to draw from."""
    asked = [shlex.split(line, comments=True) for page in PAGES for line in commands_in(page)]
    compared = [words for words in asked if words[1] == "eval" and "--shots" in words and words[2] in JOB_FILES]
    assert compared
    for words in compared:
        most = max(int(shots) for shots in words[words.index("--shots") + 1].split(","))
        assert most <= examples_of(words[2]), words


def examples_of(name: str) -> int:
    """How many an example job has to draw from."""
    spec = yaml.safe_load(JOB_FILES[name])
    pool = spec.get("eval", {}).get("pool")
    if pool:
        return int(pq.read_metadata(ROOT / "jobs" / name / (pool if isinstance(pool, str) else pool["path"])).num_rows)
    return len(spec["prompt"].get("examples", []))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link names a file that is there."""
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_the_queries_of_the_docs_run(tmp_path: Path) -> None:
    """Each SQL query of docs/cache.md runs on a cache as this version makes it."""
    store = Store(tmp_path / "cache.duckdb")
    store.create_or_migrate()
    [block] = re.findall(
        r"^```sql\n(.*?)^```", (ROOT / "docs/cache.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    queries = [query for query in block.split(";") if query.strip()]
    with store.open() as db:
        for query in queries:
            db.execute(query).fetchall()
    assert len(queries) > 1


PACKAGES = {path.parent.name for path in ROOT.glob("batchinfer/*/__init__.py")}


def test_the_readme_names_every_folder() -> None:
    """The README's table has a line for each top-level folder that is part of the project."""
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## What is where")[2]
    named = re.findall(r"^\| `([a-z]+)/` \|", table, re.MULTILINE)
    there = {path.parent.name for path in ROOT.glob("[a-z]*/*") if path.suffix in (".py", ".md", ".yaml")}
    assert set(named) - {"jobs", "docker"} == there - {"jobs", "docker"}
    assert all((ROOT / name).is_dir() for name in named)


def test_the_architecture_places_every_package() -> None:
    """The picture of floors and the table have each package once, on the floor that import-linter checks."""
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    drawn = [line.strip("│ ").split() for line in re.findall(r"^│.*│$", page, re.MULTILINE)]
    assert drawn == GENERATE["floors"]()
    assert sorted(name for names in drawn for name in names) == sorted([*PACKAGES, "errors"])
    listed = re.findall(r"^\| `(\w+)` \| (.+) \|$", page, re.MULTILINE)
    assert [name for name, _ in listed] == [name for names in drawn for name in names]


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_package_says_in_a_line_what_it_is_for(name: str) -> None:
    """The first line of its docstring is a sentence, fit for the table of packages."""
    line = GENERATE["first_line"](name)
    assert line.endswith(".")
    assert "|" not in line


def test_contributing_knows_the_packages() -> None:
    """Every package and test folder that CONTRIBUTING names exists."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = page.partition("## Where a new thing goes")[2].partition("\n## ")[0]
    paths = [path for path in re.findall(r"`([a-z_]+/[a-z_./]*)`", table) if path != "utils.py"]
    missing = [path for path in paths if not (ROOT / path).exists() and not (ROOT / "batchinfer" / path).exists()]
    assert paths
    assert not missing


def test_the_example_job_file_is_valid() -> None:
    """The job file that docs/job-file.md shows can be read."""
    assert reader.parse(TEXTS["job_file"], "example").name == "vaccine_names"


@pytest.mark.parametrize("name", ["the docs' example", *JOB_FILES])
def test_the_json_schema_takes_what_is_valid(name: str) -> None:
    """Editors that use the schema find no fault with the jobs that are there."""
    text = JOB_FILES.get(name, TEXTS["job_file"])
    Draft202012Validator(GENERATE["schema"]()).validate(yaml.safe_load(text))


def test_the_json_schema_refuses_a_typo() -> None:
    """Editors that use the schema show an unknown field."""
    content = yaml.safe_load(TEXTS["job_file"])
    content["promt"] = content.pop("prompt")
    assert not Draft202012Validator(GENERATE["schema"]()).is_valid(content)


def test_every_field_is_described() -> None:
    """No field of the job file is without a sentence."""
    schema = json.loads((ROOT / "docs/job.schema.json").read_text(encoding="utf-8"))
    objects = [schema, *schema["$defs"].values()]
    bare = [name for part in objects for name, field in part["properties"].items() if not field.get("description")]
    assert not bare
